"""How long the queries of each page take on a ledger of five million runs and 500 jobs.

`python -m tests.bench.bench_dashboard [--runs N] [--url postgresql://…]`: without a URL a PostgreSQL server of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import event

from batchd.db.engine import Database
from tests.support.databases import open_database
from tests.support.long_ledger import Ledger, fill, job_name
from tests.support.postgres import fresh_database, start_server
from tests.support.web import Surface, opened_surface

MEDIAN_LIMIT = 0.050
"""Seconds that the queries of a page may take at the median."""

_ROUNDS = 15
_PAGES = (
    "/",
    "/jobs",
    "/jobs?q=job-01",
    "/jobs/{job}",
    "/jobs/{job}?range=90d",
    "/runs",
    "/runs?job={job}&state=failed",
    "/runs?state=failed&state=cancelled",
    "/runs?state=queued",
    "/runs?period=24h",
    "/runs?before={run}",
    "/runs/{run}",
    "/dead-letter",
    "/queues",
    "/exports",
    "/incidents",
    "/audit",
)


def main() -> None:
    """Fill, ask, print; ends with 1 when a page is too slow."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5_000_000)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--url")
    given = parser.parse_args()
    with _store(given.url) as store:
        began = time.monotonic()
        fill(store, Ledger(given.runs, given.jobs))
        print(f"{given.runs:,} runs of {given.jobs} jobs in {time.monotonic() - began:.0f} s")
        with opened_surface(store) as surface:
            slow = [path for path in _PAGES if _measured(store, surface, path) > MEDIAN_LIMIT]
    if slow:
        raise SystemExit(f"too slow: {', '.join(slow)}")


@contextlib.contextmanager
def _store(url: str | None) -> Iterator[Database]:
    with contextlib.ExitStack() as stack:
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = stack.enter_context(fresh_database(stack.enter_context(start_server(folder, "18"))))
        yield stack.enter_context(contextlib.closing(open_database(url)))


def _measured(store: Database, surface: Surface, path: str) -> float:
    """Print and return the median of what the page's statements take together; each round is another job."""
    headers = surface.sign_in()
    queries, whole = [], []
    for place in range(_ROUNDS):
        with _timed(store) as taken:
            began = time.monotonic()
            answer = surface.get(path.format(job=job_name(7 + 13 * place), run=500 + place), headers=headers)
            whole.append(time.monotonic() - began)
        assert answer.status_code == 200, (path, answer.status_code)
        queries.append(sum(taken))
    median = statistics.median(queries)
    print(
        f"{path:42} queries {median * 1000:6.1f} ms (from {min(queries) * 1000:.1f} to {max(queries) * 1000:.1f})  "
        f"whole answer {statistics.median(whole) * 1000:6.1f} ms"
    )
    return median


@contextlib.contextmanager
def _timed(store: Database) -> Iterator[list[float]]:
    taken: list[float] = []

    def before(connection: Any, *_rest: Any) -> None:
        connection.info["began"] = time.monotonic()

    def after(connection: Any, *_rest: Any) -> None:
        taken.append(time.monotonic() - connection.info["began"])

    event.listen(store.engine, "before_cursor_execute", before)
    event.listen(store.engine, "after_cursor_execute", after)
    try:
        yield taken
    finally:
        event.remove(store.engine, "before_cursor_execute", before)
        event.remove(store.engine, "after_cursor_execute", after)


if __name__ == "__main__":
    main()
