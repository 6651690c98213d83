"""What each page costs on a ledger of five million runs and 500 jobs: statements, processor time, time on the clock.

`python -m tests.bench.bench_dashboard [--runs N] [--url postgresql://…|sqlite:///… [--filled]]`: without a URL a
PostgreSQL server of its own. Processor time is that of this process, which renders the page and asks for it, and of
the database's backends (where they run on this machine, and it is Linux). On an idle machine a page takes about both
together; on a busy one they still say what it costs, and the clock does not.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import event, text

from batchd.db.engine import Database
from tests.support.databases import open_database
from tests.support.long_ledger import Ledger, fill, job_name
from tests.support.postgres import fresh_database, start_server
from tests.support.web import Surface, opened_surface

MEDIAN_LIMIT = 0.050
"""Seconds of processor time that a whole page may take at the median, the database's backends included."""

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
    parser.add_argument("--filled", action="store_true", help="the store at the URL has its runs from an earlier time")
    given = parser.parse_args()
    with _store(given.url) as store:
        if not given.filled:
            began = time.monotonic()
            fill(store, Ledger(given.runs, given.jobs))
            print(f"{given.runs:,} runs of {given.jobs} jobs in {time.monotonic() - began:.0f} s", flush=True)
        print(f"{'page (medians)':36} statements   CPU ms: server  backends  together   wall ms: statements  page")
        with opened_surface(store, name=uuid4().hex) as surface:  # names of its own, beside those of an earlier time
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


@dataclass(frozen=True, slots=True)
class _Cost:
    """One answer: its statements, and seconds of processor time and on the clock."""

    statements: int
    server: float
    backends: float
    waited: float
    whole: float

    @property
    def processor(self) -> float:
        return self.server + self.backends


def _measured(store: Database, surface: Surface, path: str) -> float:
    """Print what the page costs and return the median of its processor time; each round is another job."""
    headers = surface.sign_in()
    costs = [_asked(store, surface, path, place, headers) for place in range(_ROUNDS)]
    middle = {
        name: 1000 * statistics.median(getattr(cost, name) for cost in costs)
        for name in ("server", "backends", "processor", "waited", "whole")
    }
    print(
        f"{path:36} {statistics.median(cost.statements for cost in costs):10.0f}   {middle['server']:14.1f}"
        f"{middle['backends']:10.1f}{middle['processor']:10.1f}   {middle['waited']:19.1f}{middle['whole']:6.0f}",
        flush=True,
    )
    return middle["processor"] / 1000


def _asked(store: Database, surface: Surface, path: str, place: int, headers: dict[str, str]) -> _Cost:
    with _timed(store) as taken:
        before = _backends_seconds(store)
        began, processor = time.monotonic(), time.process_time()
        answer = surface.get(path.format(job=job_name(7 + 13 * place), run=500 + place), headers=headers)
        whole, server = time.monotonic() - began, time.process_time() - processor
        backends = _backends_seconds(store) - before
    assert answer.status_code == 200, (path, answer.status_code)
    return _Cost(len(taken), server, backends, sum(taken), whole)


def _backends_seconds(store: Database) -> float:
    """Return how long the backends of the store's database have been on a processor so far, to the nanosecond."""
    if store.dialect.name != "postgresql":
        return 0.0
    # The one that answers this is among them: the statement costs some tenths of a millisecond, and counts.
    with store.engine.connect() as connection:
        backends = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
        pids = connection.scalars(backends).all()
    return sum(map(_seconds_of, pids))


def _seconds_of(pid: int) -> float:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return 0.0


@contextlib.contextmanager
def _timed(store: Database) -> Iterator[list[float]]:
    taken: list[float] = []

    def before(connection: Any, *_rest: Any) -> None:
        connection.info["began"] = time.monotonic()

    def after(connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "pg_stat_activity" not in statement:
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
