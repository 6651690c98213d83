r"""How fast a CSV file becomes rows of PostgreSQL, beside the ways that people write by hand.

    python -m tests.bench.bench_csv_import --rows 1000000 --repeat 3

The same file (six columns, one record in twenty a duplicate) into the same empty table with a unique key, each way in a
process of its own, whose peak memory is measured. "Copy" is what psql's \\copy does: the file's bytes into an unlogged
staging table without an index, then one INSERT … SELECT … ON CONFLICT DO NOTHING. Trust the ratios.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg

from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.jobs.kinds.csv_import import KIND
from tests.support.job_context import DirectContext
from tests.support.postgres import fresh_database, start_server

_DUPLICATE_EVERY = 20
_COLUMNS = "id, email, name, age, balance, created_at"
_TABLE = """
    CREATE TABLE users (id integer NOT NULL, email text NOT NULL UNIQUE, name text NOT NULL, age integer,
                        balance numeric(12, 2), created_at timestamptz NOT NULL)
"""
_CASTS = "id::integer, email, name, NULLIF(age, '')::integer, NULLIF(balance, '')::numeric, created_at::timestamptz"


def write_file(path: Path, rows: int) -> int:
    """Write the file; return how many different keys it has."""
    keys = 0
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(_COLUMNS.split(", "))
        for number in range(rows):
            is_double = number % _DUPLICATE_EVERY == _DUPLICATE_EVERY - 1
            key = number - _DUPLICATE_EVERY + 1 if is_double else number
            keys += not is_double
            created = f"2026-01-{key % 28 + 1:02d} {key % 24:02d}:{key % 60:02d}:00+00"
            lines.writerow(
                [
                    number,
                    f"user{key}@example.org",
                    f"Name {key} van der Berg",
                    key % 90 or "",
                    f"{key % 9999}.50",
                    created,
                ]
            )
    return keys


def copy_way(url: str, path: Path) -> None:
    """Copy the bytes, then insert all at once."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        columns = ", ".join(f"{name} text" for name in _COLUMNS.split(", "))
        cursor.execute(f"CREATE UNLOGGED TABLE staging ({columns})".encode())
        with path.open("rb") as file, cursor.copy("COPY staging FROM STDIN (FORMAT csv, HEADER)") as copy:
            while block := file.read(1 << 16):
                copy.write(block)
        cursor.execute(f"INSERT INTO users ({_COLUMNS}) SELECT {_CASTS} FROM staging ON CONFLICT DO NOTHING".encode())
        cursor.execute("DROP TABLE staging")


def csv_import(url: str, path: Path) -> None:
    """Run the kind."""
    database = Database(DatabaseSettings("app", url, 2, timedelta(seconds=30), None, None))
    params = {"database": "app", "table": "users", "path": str(path), "on_conflict": "skip"}
    KIND.run(KIND.params.model_validate(params), DirectContext({"app": database}))
    database.close()


def _batches(path: Path, size: int) -> Iterator[list[list[str | None]]]:
    with path.open(newline="") as file:
        lines = csv.reader(file)
        next(lines)
        while batch := list(itertools.islice(lines, size)):
            yield [[field or None for field in record] for record in batch]


def executemany(url: str, path: Path) -> None:
    """Insert batches of 1,000 by executemany, each in a transaction."""
    statement = f"INSERT INTO users ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
    with psycopg.connect(url) as connection:
        for batch in _batches(path, 1_000):
            with connection.cursor() as cursor:
                cursor.executemany(statement.encode(), batch)
            connection.commit()


def create_many(url: str, path: Path) -> None:
    """Insert batches of 1,000 as one multi-row VALUES each, as an ORM's createMany does."""
    row = "(%s, %s, %s, %s, %s, %s)"
    with psycopg.connect(url) as connection:
        for batch in _batches(path, 1_000):
            statement = f"INSERT INTO users ({_COLUMNS}) VALUES {', '.join([row] * len(batch))} ON CONFLICT DO NOTHING"
            connection.execute(statement.encode(), list(itertools.chain.from_iterable(batch)))
            connection.commit()


WAYS: dict[str, Callable[[str, Path], None]] = {
    "copy, then one INSERT": copy_way,
    "csv_import": csv_import,
    "executemany, 1,000": executemany,
    "createMany, 1,000": create_many,
}


def measured(way: str, url: str, path: Path, keys: int) -> tuple[float, float]:
    """Return seconds and peak megabytes of one way, in a process of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS users, batchd_checkpoints, batchd_rejects")
        connection.execute(_TABLE)
        connection.execute("CHECKPOINT")
    command = [sys.executable, "-m", "tests.bench.bench_csv_import", "--way", way, "--url", url, "--file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    with psycopg.connect(url) as connection:
        (count,) = connection.execute("SELECT count(*) FROM users").fetchone() or (0,)
    assert count == keys, f"{way}: {count} rows instead of {keys}"
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes


def report(rows: int, repeat: int, version: str) -> None:
    """Measure every way in turn, `repeat` times over, and print the medians."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "users.csv"
        keys = write_file(path, rows)
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        with start_server(folder, version, synced=True) as server, fresh_database(server) as url:
            for _ in range(repeat):
                for way in WAYS:
                    found[way].append(measured(way, url, path, keys))
        size = path.stat().st_size / 1e6
    speeds = {way: rows / statistics.median(seconds for seconds, _ in runs) for way, runs in found.items()}
    print(f"\n{rows:,} records, {size:.0f} MB, {keys:,} keys, PostgreSQL ({version}), medians of {repeat}")
    print(f"{'way':24} {'records/s':>10} {'of copy':>8} {'of executemany':>15} {'peak MB':>8}")
    for way, runs in found.items():
        peak = max(megabytes for _, megabytes in runs)
        of_copy, of_many = speeds[way] / speeds["copy, then one INSERT"], speeds[way] / speeds["executemany, 1,000"]
        print(f"{way:24} {speeds[way]:>10,.0f} {of_copy:>8.2f} {of_many:>15.2f} {peak:>8.0f}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--server", default="older", help="older or 18")
    parser.add_argument("--way", choices=list(WAYS), help="measure one way in this process (for the bench itself)")
    parser.add_argument("--url")
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    if options.way is None:
        report(options.rows, options.repeat, options.server)
        return
    began = time.monotonic()
    WAYS[options.way](options.url, options.file)
    print(json.dumps([time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


if __name__ == "__main__":
    main()
