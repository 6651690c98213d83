"""How fast cleanup deletes 2 of 5 parts of a table, and what everybody else feels meanwhile.

    python -m tests.bench.bench_cleanup --rows 5000000 --databases postgresql,sqlite --repeat 3

Each method deletes the same rows of the same table, while another process updates single rows of the part that stays at
a steady rate. "Update p99" is that load's 99th percentile while the method works, beside the same load undisturbed; the
load's first second counts for neither: it fills caches and writes whole pages to the log. Trust the ratios.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

from sqlalchemy import text

from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.jobs.kinds.cleanup import KIND
from tests.support.job_context import DirectContext
from tests.support.postgres import fresh_database, start_server

_NEWEST = datetime(2026, 1, 1, tzinfo=UTC)
_KEPT = 0.6
_UPDATES_PER_SECOND = {"postgresql": 1000, "sqlite": 50}
_WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Measured:
    """One method's run."""

    seconds: float
    rows: int
    longest_ms: float
    update_p99_ms: float
    update_max_ms: float


class UpdateLoad:
    """Point updates at a steady rate; a late answer delays those behind it, as it would a real client.

    In a process of its own, as other people's clients are: a thread would share the interpreter's lock with cleanup,
    but not with the one big DELETE, which needs it once.
    """

    def __init__(self, database: Database, rows: int, rate: int) -> None:
        spawned = multiprocessing.get_context("spawn")
        self._updates: list[tuple[float, float]] = []
        self._ended = spawned.Event()
        self._answer, answer = spawned.Pipe(duplex=False)
        begun = spawned.Event()
        given = (database.settings, int(rows * _KEPT), rate, begun, self._ended, answer)
        self._process = spawned.Process(target=_update, args=given, daemon=True)
        self._process.start()
        assert begun.wait(60), "the load has not begun"
        time.sleep(_WARM_UP_SECONDS)

    def stop(self) -> None:
        """End the load."""
        self._ended.set()
        self._updates = self._answer.recv()
        self._process.join()

    def latencies_ms(self, began: float, ended: float) -> list[float]:
        """Return how long the updates took that began between these moments of the monotonic clock; once it is over."""
        return [latency for at, latency in self._updates if began <= at <= ended]


def _update(settings: DatabaseSettings, kept: int, rate: int, begun: Event, ended: Event, answer: Connection) -> None:
    database = Database(settings)
    statement = text("UPDATE logs SET message = :message WHERE id = :id")
    updates: list[tuple[float, float]] = []
    number, started = 0, time.monotonic()
    while not ended.is_set():
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        before = time.monotonic()
        with database.writing() as connection:
            connection.execute(statement, {"message": f"touched {number}", "id": (number * 7919) % kept + 1})
        updates.append((before, (time.monotonic() - before) * 1000))
        number = max(number + 1, int((time.monotonic() - started) * rate))
        begun.set()
    answer.send(updates)


def percentile(values: list[float], part: float) -> float:
    """Return the percentile, or nan for too few values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")


def fill(database: Database, rows: int) -> datetime:
    """Make the table afresh, ordered by time, the newest first by id; return the cutoff that dooms 2 of 5 rows."""
    is_postgres = database.dialect.name == "postgresql"
    start = int(_NEWEST.timestamp())
    with database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS logs")
        connection.exec_driver_sql(
            "CREATE TABLE logs (id bigint PRIMARY KEY, created_at "
            + ("timestamptz" if is_postgres else "bigint")
            + ", level text, message text)"
        )
        numbers = (
            f"generate_series(1, {rows}) AS s(n)"
            if is_postgres
            else f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) SELECT n FROM s)"
        )
        at = f"to_timestamp({start} - n)" if is_postgres else f"{start} - n"
        connection.exec_driver_sql(
            f"INSERT INTO logs SELECT n, {at}, 'info', 'GET /orders/' || n || ' 200 in 12 ms, agent Mozilla/5.0' "
            f"FROM {numbers}"
        )
        connection.exec_driver_sql("CREATE INDEX logs_created_at ON logs (created_at)")
        connection.exec_driver_sql("CREATE INDEX logs_level ON logs (level)")
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if is_postgres:
            connection.exec_driver_sql("VACUUM ANALYZE logs")
            connection.exec_driver_sql("CHECKPOINT")
    database.dialect.tidy(database.engine, thoroughly=True)
    return _NEWEST - timedelta(seconds=int(rows * _KEPT))


def one_big_delete(database: Database, cutoff: datetime) -> tuple[int, float]:
    """Delete everything in one statement."""
    bound = "to_timestamp(:at)" if database.dialect.name == "postgresql" else ":at"
    started = time.monotonic()
    with database.writing() as connection:
        done = connection.execute(text(f"DELETE FROM logs WHERE created_at < {bound}"), {"at": int(cutoff.timestamp())})
    return done.rowcount, (time.monotonic() - started) * 1000


def cleanup(**params: object) -> Callable[[Database, datetime], tuple[int, float]]:
    """Return a run of the kind with the params."""

    def run(database: Database, cutoff: datetime) -> tuple[int, float]:
        class At:
            def now(self) -> datetime:
                return cutoff + timedelta(days=1)

            def monotonic(self) -> float:
                return time.monotonic()

        values = {"database": "app", "table": "logs", "column": "created_at", "older_than": "1d"} | params
        result = KIND.run(KIND.params.model_validate(values), DirectContext({"app": database}, clock=At()))
        rows, longest = result["rows_deleted"], result["longest_chunk_ms"]
        assert isinstance(rows, int)
        assert isinstance(longest, int | float)
        return rows, longest

    return run


def single_size(rows: int) -> Callable[[Database, datetime], tuple[int, float]]:
    """Return a plain loop of chunks by LIMIT from the head of the index, as most tools do it."""

    def run(database: Database, cutoff: datetime) -> tuple[int, float]:
        is_postgres = database.dialect.name == "postgresql"
        bound, row = ("to_timestamp(:at)", "ctid") if is_postgres else (":at", "rowid")
        chosen = f"SELECT {row} FROM logs WHERE created_at < {bound} ORDER BY created_at LIMIT {rows}"
        where = f"ctid = ANY(ARRAY({chosen}))" if is_postgres else f"rowid IN ({chosen})"
        total, longest, gone = 0, 0.0, -1
        while gone:
            started = time.monotonic()
            with database.writing() as connection:
                done = connection.execute(text(f"DELETE FROM logs WHERE {where}"), {"at": int(cutoff.timestamp())})
            gone = done.rowcount
            total += gone
            longest = max(longest, (time.monotonic() - started) * 1000)
        return total, longest

    return run


METHODS: dict[str, Callable[[Database, datetime], tuple[int, float]]] = {
    "one big DELETE": one_big_delete,
    "cleanup (defaults)": cleanup(),
    "cleanup, no pause": cleanup(pause="0s"),
    "chunks by LIMIT, 1,000": single_size(1000),
    "chunks by LIMIT, 5,000": single_size(5000),
}


def measure(database: Database, rows: int, method: Callable[[Database, datetime], tuple[int, float]]) -> Measured:
    """Fill the table, start the load, and run the method."""
    cutoff = fill(database, rows)
    load = UpdateLoad(database, rows, _UPDATES_PER_SECOND[database.dialect.name])
    started = time.monotonic()
    try:
        deleted, longest = method(database, cutoff)
    finally:
        ended = time.monotonic()
        load.stop()
    latencies = load.latencies_ms(started, ended)
    return Measured(ended - started, deleted, longest, percentile(latencies, 0.99), max(latencies))


def undisturbed_p99(database: Database, rows: int) -> float:
    """Return the load's p99 with nothing else going on."""
    fill(database, rows)
    load = UpdateLoad(database, rows, _UPDATES_PER_SECOND[database.dialect.name])
    began = time.monotonic()
    time.sleep(4)
    ended = time.monotonic()
    load.stop()
    return percentile(load.latencies_ms(began, ended), 0.99)


def report(name: str, database: Database, rows: int, repeat: int) -> None:
    """Measure every method in turn, `repeat` times over, and print the medians."""
    calm = statistics.median(undisturbed_p99(database, rows) for _ in range(repeat))
    runs: dict[str, list[Measured]] = {method: [] for method in METHODS}
    for _ in range(repeat):
        for method, run in METHODS.items():
            runs[method].append(measure(database, rows, run))

    def median(method: str, fact: Callable[[Measured], float]) -> float:
        return statistics.median(fact(one) for one in runs[method])

    base = median("one big DELETE", lambda one: one.rows / one.seconds)
    doomed = int(rows * (1 - _KEPT))
    print(f"\n{name}: {doomed:,} of {rows:,} rows, undisturbed update p99 {calm:.1f} ms, medians of {repeat}")
    print(
        f"{'method':24} {'rows/s':>10} {'of DELETE':>9} {'longest ms':>10} {'p99 ms':>8} {'of calm':>8} {'max ms':>8}"
    )
    for method in METHODS:
        speed = median(method, lambda one: one.rows / one.seconds)
        p99 = median(method, lambda one: one.update_p99_ms)
        print(
            f"{method:24} {speed:>10,.0f} {speed / base:>9.2f} {median(method, lambda one: one.longest_ms):>10.0f} "
            f"{p99:>8.1f} {p99 / calm:>8.1f} {median(method, lambda one: one.update_max_ms):>8.0f}",
            flush=True,
        )


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Database]:
    """Open an empty database of the kind: sqlite, postgresql or postgresql-18."""

    def settings(url: str) -> DatabaseSettings:
        return DatabaseSettings("bench", url, 5, timedelta(seconds=30), None, None)

    if kind == "sqlite":
        yield Database(settings(f"sqlite:///{folder / 'bench.db'}"))
        return
    folder.chmod(0o755)
    with (
        start_server(folder, "18" if kind.endswith("18") else "older", synced=True) as server,
        fresh_database(server) as url,
    ):
        database = Database(settings(url))
        yield database
        database.close()


def main() -> None:
    """Print one table a database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--databases", default="postgresql,sqlite", help="of sqlite, postgresql, postgresql-18")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    for kind in options.databases.split(","):
        with tempfile.TemporaryDirectory(prefix="bench") as folder, opened(kind, Path(folder)) as database:
            report(kind, database, options.rows, options.repeat)


if __name__ == "__main__":
    main()
