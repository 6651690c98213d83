"""How fast an application enqueues: one by one, many at once, in its own transaction, by SQL; beside a bare COPY.

    python -m tests.bench.bench_enqueue --rows 100000 --databases postgresql,sqlite --repeat 3

"CPU µs" is what a run costs the client and its server process together, which says more than the speed where others
use the machine too. COPY is the floor: it checks nothing, and knows no jobs and no keys.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import psycopg

from batchd import Client, RunRequest
from batchd.db.engine import Database
from batchd.store.known_names import KindParams, register
from batchd.store.migrate import migrate
from tests.support.databases import open_database
from tests.support.postgres import fresh_database, start_server

_SINGLE = 500
_RETRY = '{"backoff": "exponential", "delay_seconds": 10.0, "max_delay_seconds": 3600.0, "jitter": 0.1}'
_COPY = (
    "COPY batchd_runs (kind, queue, priority, params, available_at, timeout_seconds, retry, state, max_attempts,"
    " created_at, created_by) FROM STDIN"
)


def one_by_one(client: Client, _url: str, _rows: int) -> int:
    """Enqueue in a transaction each."""
    for n in range(_SINGLE):
        client.enqueue("noop", {"user_id": n})
    return _SINGLE


def many(client: Client, _url: str, rows: int) -> int:
    """Enqueue all of them in one call, the making of the requests included."""
    return len(client.enqueue_many(RunRequest("noop", {"user_id": n}) for n in range(rows)))


def many_unique(client: Client, _url: str, rows: int) -> int:
    """Enqueue with a unique key each."""
    count = rows // 5
    stamp = time.perf_counter_ns()
    return len(client.enqueue_many(RunRequest("noop", unique_key=f"{stamp}-{n}") for n in range(count)))


def within_a_transaction(client: Client, url: str, rows: int) -> int:
    """Enqueue all of them on a connection of psycopg's, with one commit."""
    with psycopg.connect(url) as connection:
        return len(
            client.enqueue_many([RunRequest("noop", {"user_id": n}) for n in range(rows)], connection=connection)
        )


def by_sql(_client: Client, url: str, rows: int) -> int:
    """Call the function for each row of a SELECT."""
    call = f"SELECT batchd_enqueue('noop', jsonb_build_object('user_id', n)) FROM generate_series(1, {rows // 5}) AS n"
    with psycopg.connect(url) as connection:
        return connection.execute(call.encode()).rowcount


def bare_copy(_client: Client, url: str, rows: int) -> int:
    """Send the rows by COPY."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for n in range(rows):
            copy.write_row(("noop", "default", 0, f'{{"user_id": {n}}}', "now", 3600, _RETRY, "queued", 3, "now", "x"))
    return rows


METHODS: dict[str, tuple[Callable[[Client, str, int], int], tuple[str, ...]]] = {
    "one by one": (one_by_one, ("postgresql", "sqlite")),
    "enqueue_many": (many, ("postgresql", "sqlite")),
    "enqueue_many, unique keys": (many_unique, ("postgresql", "sqlite")),
    "enqueue_many, psycopg": (within_a_transaction, ("postgresql",)),
    "SELECT batchd_enqueue(…) FROM": (by_sql, ("postgresql",)),
    "bare COPY": (bare_copy, ("postgresql",)),
}


def main() -> None:
    """Measure the methods on each database and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--databases", default="postgresql,sqlite")
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    for dialect in chosen.databases.split(","):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = f"sqlite:///{folder / 'store.db'}"
            if dialect == "postgresql":
                url = stack.enter_context(fresh_database(stack.enter_context(start_server(folder, "older"))))
            store = stack.enter_context(closing(open_database(url)))
            migrate(store)
            register(store, {"noop": KindParams(None, frozenset(), frozenset())}, [])
            print(f"\n{dialect}, {chosen.rows:,} rows, median of {chosen.repeat}")
            print(f"{'method':32} {'runs/s':>10} {'CPU µs':>8}")
            for name, (method, dialects) in METHODS.items():
                if dialect in dialects:
                    print_row(name, [measure(store, url, method, chosen.rows) for _ in range(chosen.repeat)])


def measure(store: Database, url: str, method: Callable[[Client, str, int], int], rows: int) -> tuple[float, float]:
    """Return runs a second, and the CPU's microseconds of a run."""
    with Client(url) as client:
        client.enqueue("noop")
        before = _cpu_seconds(store)
        began = time.perf_counter()
        count = method(client, url, rows)
        seconds = time.perf_counter() - began
        return count / seconds, 1e6 * (_cpu_seconds(store) - before) / count


def print_row(name: str, measured: list[tuple[float, float]]) -> None:
    """Print the medians."""
    rate, cost = (statistics.median(each[place] for each in measured) for place in (0, 1))
    print(f"{name:32} {rate:>10,.0f} {cost:>8.1f}")


def _cpu_seconds(store: Database) -> float:
    """The CPU time of this process, and of the server's processes, those that have ended included."""
    used = sum(psutil.Process().cpu_times()[:2])
    if store.dialect.name == "postgresql":
        with store.reading() as connection:
            backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        postmaster = psutil.Process(psutil.Process(backend).ppid())
        used += sum(postmaster.cpu_times()[:4])
        used += sum(sum(process.cpu_times()[:2]) for process in postmaster.children())
    return used


if __name__ == "__main__":
    main()
