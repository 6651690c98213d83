"""How fast runs are queued, begun and finished, beside Procrastinate on the same PostgreSQL, one after the other.

    pip install -e .[bench]
    python -m tests.bench.bench_queues --repeat 3
    python -m tests.bench.bench_queues --singles 50 --bulk 2000 --runs 500 --seconds 3 --waiting 10000   (a short look)

Both have 10 workers and runs that do nothing, and keep every finished run. Figures, each the median over the repeats:
- single, bulk: runs queued in a second, each in its own transaction, or all in one call;
- processed: runs that began and ended in a second, from the first start to the last end as each one's own tables say;
- latency: from the call that queues a run to the first line of its function, by the machine's clock, at 20 runs a
  second; half of them within p50 and 99 of 100 within p99;
- the same two with very many runs waiting: for `processed` in the same queue behind the runs that are measured (a lower
  priority), for `latency` in a queue that is paused (batchd) or that no worker serves (Procrastinate).
Trust the ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg

from batchd import Client, RunRequest
from batchd.db.engine import Database
from batchd.store import queue_control
from batchd.store.migrate import migrate
from tests.support.daemon import Daemon, write_config
from tests.support.databases import open_database
from tests.support.postgres import fresh_database, start_server
from tests.support.processes import RunningProcess
from tests.support.waiting import wait_until

WORKERS = 10
A_SECOND = 20
_BEHIND, _ASIDE = ("default", -10), ("aside", 0)


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    singles: int
    bulk: int
    runs: int
    seconds: int
    waiting: int


class Contender(Protocol):
    """One of the two, on an empty database."""

    name: str

    def queue_one(self) -> None:
        """Queue a run in a transaction of its own."""

    def queue_clock(self, file: Path) -> None:
        """Queue a run that appends to the file how many seconds after this call its function began."""

    def queue_many(self, count: int) -> None:
        """Queue runs in one call."""

    def flood(self, count: int, queue: str, priority: int) -> None:
        """Let so many runs wait, by plain SQL."""

    def set_aside(self, queue: str) -> None:
        """Let nobody work on the queue."""

    def working(self, folder: Path) -> Any:
        """Have 10 workers for the time of the block."""

    def ended(self) -> int:
        """How many runs have ended."""

    def processed_in(self, count: int) -> float:
        """Seconds from the first start to the end of the run that was the `count`th to end."""


class Batchd:
    """batchd: the daemon as a process, its store as the client's functions reach it."""

    name = "batchd"

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: Database = open_database(url)
        migrate(self._store)
        self._client = Client(url)

    def queue_one(self) -> None:
        self._client.enqueue("noop")

    def queue_clock(self, file: Path) -> None:
        self._client.enqueue("clock", {"queued_at": time.time(), "file": str(file)})

    def queue_many(self, count: int) -> None:
        self._client.enqueue_many([RunRequest("noop") for _ in range(count)])

    def flood(self, count: int, queue: str, priority: int) -> None:
        with psycopg.connect(self._url) as connection:
            connection.execute(
                "INSERT INTO batchd_runs (kind, queue, priority, params, available_at, retry, state, max_attempts,"
                " created_at, created_by) SELECT 'noop', %s, %s, '{}', clock_timestamp(), '{}', 'queued', 1,"
                " clock_timestamp(), 'api' FROM generate_series(1, %s)",
                (queue, priority, count),
            )

    def set_aside(self, queue: str) -> None:
        queue_control.pause(self._store, queue)

    @contextmanager
    def working(self, folder: Path) -> Iterator[None]:
        settings = {
            "daemon": {"workers": WORKERS, "keep_runs": 10_000_000},
            "store": {"url": self._url},
            "log": {"level": "warning"},
            "jobs": {"idle": {"kind": "noop"}},
        }
        before = _value(self._url, "SELECT count(*) FROM batchd_workers WHERE state = 'running'")
        with Daemon(write_config(folder, settings)) as daemon:
            alive = "SELECT count(*) FROM batchd_workers WHERE state = 'running'"
            wait_until(lambda: _value(self._url, alive) > before, seconds=120, what="the daemon")
            yield
            daemon.stop(seconds=120)

    def ended(self) -> int:
        return int(_value(self._url, "SELECT count(*) FROM batchd_attempts WHERE outcome = 'succeeded'"))

    def processed_in(self, count: int) -> float:
        return _value(
            self._url,
            "WITH done AS (SELECT started_at, finished_at FROM batchd_attempts WHERE outcome = 'succeeded'"
            f" ORDER BY finished_at LIMIT {count})"
            " SELECT extract(epoch FROM max(finished_at) - min(started_at)) FROM done",
        )


class Procrastinate:
    """Procrastinate: its own worker as a process, its synchronous connector to queue."""

    name = "procrastinate"

    def __init__(self, url: str) -> None:
        from tests.bench.procrastinate_app import app_on  # noqa: PLC0415 (only where it is installed)

        self._url = url
        self._app = app_on(url, is_worker=False)
        self._app.open()
        self._app.schema_manager.apply_schema()
        self._task = self._app.tasks["noop"]

    def queue_one(self) -> None:
        self._task.defer()

    def queue_clock(self, file: Path) -> None:
        self._app.tasks["clock"].defer(queued_at=time.time(), file=str(file))

    def queue_many(self, count: int) -> None:
        self._task.batch_defer(*({} for _ in range(count)))

    def flood(self, count: int, queue: str, priority: int) -> None:
        with psycopg.connect(self._url) as connection:
            connection.execute(
                "INSERT INTO procrastinate_jobs (queue_name, task_name, priority, args)"
                " SELECT %s, 'noop', %s, '{}' FROM generate_series(1, %s)",
                (queue, priority, count),
            )

    def set_aside(self, queue: str) -> None:
        """Its worker serves the queue `default` only."""

    @contextmanager
    def working(self, folder: Path) -> Iterator[None]:
        command = [sys.executable, "-m", "tests.bench.procrastinate_app", self._url]
        with RunningProcess(command, folder=Path.cwd()) as worker:
            wait_until(lambda: "ready" in worker.output, seconds=120, what=f"the worker in {folder}")
            yield

    def ended(self) -> int:
        return int(_value(self._url, "SELECT count(*) FROM procrastinate_events WHERE type = 'succeeded'"))

    def processed_in(self, count: int) -> float:
        return _value(
            self._url,
            "WITH done AS (SELECT job_id, at FROM procrastinate_events WHERE type = 'succeeded'"
            f" ORDER BY at LIMIT {count})"
            " SELECT extract(epoch FROM max(done.at) - min(e.at)) FROM done"
            " JOIN procrastinate_events e ON e.job_id = done.job_id AND e.type = 'started'",
        )


def measured(fresh: Callable[[], Any], sizes: Sizes) -> dict[str, float]:
    """Return all figures of one contender; each part has a database of its own."""
    with fresh() as contender:
        figures = {"single/s": _rate(sizes.singles, lambda: [contender.queue_one() for _ in range(sizes.singles)])}
    with fresh() as contender:
        figures["bulk/s"] = _rate(sizes.bulk, lambda: contender.queue_many(sizes.bulk))
    for waiting in (0, sizes.waiting):
        label = f" ({waiting} waiting)" if waiting else ""
        with fresh() as contender:
            figures[f"processed/s{label}"] = _processed(contender, sizes, waiting)
        with fresh() as contender:
            p50, p99 = _latency(contender, sizes, waiting)
            figures |= {f"p50 ms{label}": p50, f"p99 ms{label}": p99}
    return figures


def _processed(contender: Contender, sizes: Sizes, waiting: int) -> float:
    if waiting:
        contender.flood(waiting, *_BEHIND)
    contender.queue_many(sizes.runs)
    with tempfile.TemporaryDirectory() as folder, contender.working(Path(folder)):
        wait_until(lambda: contender.ended() >= sizes.runs, seconds=3600, what="the runs")
    return sizes.runs / contender.processed_in(sizes.runs)


def _latency(contender: Contender, sizes: Sizes, waiting: int) -> tuple[float, float]:
    if waiting:
        contender.flood(waiting, *_ASIDE)
        contender.set_aside(_ASIDE[0])
    count = (sizes.seconds + 1) * A_SECOND
    with tempfile.TemporaryDirectory() as folder, contender.working(Path(folder)):
        file = Path(folder) / "late"
        begun = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begun + number / A_SECOND - time.monotonic()))
            contender.queue_clock(file)
        wait_until(lambda: contender.ended() >= count, seconds=3600, what="the runs")
        told = [float(line) for line in file.read_text().splitlines()]
    # Without the first second: the first run of a kind also pays for its import.
    late = sorted(told[A_SECOND:])
    return 1000 * statistics.median(late), 1000 * late[min(len(late) - 1, int(len(late) * 0.99))]


def _rate(count: int, work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return count / (time.monotonic() - begun)


def _value(url: str, query: str) -> float:
    return _column(url, query)[0]


def _column(url: str, query: str) -> list[float]:
    with psycopg.connect(url) as connection:
        return [float(row[0]) for row in connection.execute(query)]  # type: ignore[call-overload]


def _report(figures: Mapping[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    medians = {
        name: {each: statistics.median(run[each] for run in found) for each in found[0]}
        for name, found in figures.items()
    }
    names = list(medians)
    print(f"{'':28}" + "".join(f"{name:>16}" for name in names) + f"{'ratio':>10}")
    for each in medians[names[0]]:
        values = [medians[name][each] for name in names]
        ratio = f"{values[0] / values[1]:>10.2f}" if len(values) == 2 and values[1] else ""
        print(f"{each:28}" + "".join(f"{value:>16.1f}" for value in values) + ratio)
    return medians


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (
        ("singles", 2000),
        ("bulk", 100_000),
        ("runs", 20_000),
        ("seconds", 30),
        ("waiting", 1_000_000),
    ):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--only", choices=("batchd", "procrastinate"))
    parser.add_argument("--postgres", choices=("older", "18"), default="18", help="version of the server")
    given = parser.parse_args()
    sizes = Sizes(given.singles, given.bulk, given.runs, given.seconds, given.waiting)
    contenders = [each for each in (Batchd, Procrastinate) if given.only in {None, each.name}]
    figures: dict[str, list[dict[str, float]]] = {each.name: [] for each in contenders}
    with tempfile.TemporaryDirectory() as base, start_server(Path(base), given.postgres) as server:
        for _ in range(given.repeat):
            for each in contenders:

                @contextmanager
                def fresh(each: Any = each) -> Iterator[Any]:
                    with fresh_database(server) as url:
                        yield each(url)

                figures[each.name].append(measured(fresh, sizes))
        print(json.dumps(_report(figures)))


if __name__ == "__main__":
    main()
