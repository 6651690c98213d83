"""How fast csv_export writes a table, beside COPY itself and the loops that people write.

    python -m tests.bench.bench_csv_export --rows 1000000 --databases postgresql,sqlite --repeat 3

Each method writes the same table to a file in a process of its own, so that its peak memory is its own. "share" is the
speed as a share of the first method's: COPY … TO STDOUT read by psycopg and written to a file, or SQLite's cursor with
the csv module. Trust the shares.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import create_engine, text

from batchd.jobs.kinds.csv_export import KIND
from tests.support.cleaning import execute
from tests.support.databases import open_database
from tests.support.job_context import DirectContext
from tests.support.postgres import fresh_database, start_server

_COPY = "COPY (SELECT * FROM users) TO STDOUT (FORMAT csv, HEADER)"


def make_table(url: str, rows: int) -> None:
    """Make `users` with six columns."""
    database = open_database(url)
    is_postgres = database.dialect.name == "postgresql"
    numbers = (
        f"SELECT n FROM generate_series(1, {rows}) AS n"
        if is_postgres
        else f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) SELECT n FROM s"
    )
    moment = "timestamptz" if is_postgres else "text"
    at = (
        "timestamptz '2026-01-01' + n * interval '1 second'"
        if is_postgres
        else "'2026-01-01T00:00:' || (n % 60) || 'Z'"
    )
    execute(
        database,
        f"CREATE TABLE users (id bigint PRIMARY KEY, email text, name text, score double precision, active boolean,"
        f" created_at {moment})",
        f"INSERT INTO users SELECT n, 'user' || n || '@example.com', 'Name, \"' || (n % 1000) || '\"', n / 7.0,"
        f" n % 3 = 0, {at} FROM ({numbers}) AS numbers",
    )
    if is_postgres:
        execute(database, "ANALYZE users")
    database.close()


def copy_to_file(url: str, path: Path) -> None:
    """COPY as a script would do it."""
    with psycopg.connect(url) as connection, path.open("wb") as file, connection.cursor().copy(_COPY) as copy:
        for block in copy:
            file.write(block)


def cursor_and_csv(url: str, path: Path) -> None:
    """A streaming cursor and the csv module."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection, path.open("w", newline="") as file:
        found = connection.execution_options(stream_results=True, yield_per=2_000).execute(text("SELECT * FROM users"))
        writer = csv.writer(file)
        writer.writerow(found.keys())
        for rows in found.partitions():
            writer.writerows(rows)


def fetch_all_and_csv(url: str, path: Path) -> None:
    """All rows in memory, then the csv module."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection, path.open("w", newline="") as file:
        csv.writer(file).writerows(connection.execute(text("SELECT * FROM users")).all())


def batchd(**params: Any) -> Callable[[str, Path], None]:
    """The kind itself, with these params."""

    def export(url: str, path: Path) -> None:
        database = open_database(url)
        filled = {"database": "app", "table": "users", "path": str(path)} | params
        KIND.run(KIND.params.model_validate(filled), DirectContext({"app": database}))
        database.close()

    return export


METHODS: dict[str, tuple[str, tuple[str, ...], Callable[[str, Path], None]]] = {
    "COPY to a file": ("a.csv", ("postgresql",), copy_to_file),
    "cursor + csv module": ("a.csv", ("sqlite", "postgresql"), cursor_and_csv),
    "all rows + csv module": ("a.csv", ("sqlite", "postgresql"), fetch_all_and_csv),
    "csv_export": ("a.csv", ("sqlite", "postgresql"), batchd()),
    "csv_export, resumable": ("a.csv", ("sqlite", "postgresql"), batchd(resumable=True)),
    "csv_export, formulas escaped": ("a.csv", ("sqlite", "postgresql"), batchd(escape_formulas=True)),
    "csv_export .csv.gz": ("a.csv.gz", ("sqlite", "postgresql"), batchd()),
    "csv_export .csv.zst": ("a.csv.zst", ("sqlite", "postgresql"), batchd()),
    "csv_export .ndjson": ("a.ndjson", ("sqlite", "postgresql"), batchd()),
    "csv_export .parquet": ("a.parquet", ("sqlite", "postgresql"), batchd()),
    "csv_export .xlsx": ("a.xlsx", ("sqlite", "postgresql"), batchd()),
}


def measure(method: str, url: str, folder: Path) -> tuple[float, float, int]:
    """Return seconds, peak memory in MB and bytes of one run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_csv_export", "--one", method, "--url", url, "--folder", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    return said["seconds"], said["peak_mb"], said["bytes"]


def run_one(method: str, url: str, folder: Path) -> None:
    """Run one method in this process and print what it took."""
    name, _, export = METHODS[method]
    path = folder / name
    began, cpu = time.perf_counter(), time.process_time()
    export(url, path)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"seconds": seconds, "cpu": time.process_time() - cpu, "peak_mb": peak, "bytes": path.stat().st_size}
        )
    )
    path.unlink()


def main() -> None:
    """Measure every method on every database and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--databases", default="postgresql,sqlite")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--methods", default="")
    parser.add_argument("--one")
    parser.add_argument("--url")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    if chosen.one:
        run_one(chosen.one, chosen.url, chosen.folder)
        return
    for dialect in chosen.databases.split(","):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = f"sqlite:///{folder}/app.db"
            if dialect == "postgresql":
                server = stack.enter_context(start_server(folder, "older", synced=True))
                url = stack.enter_context(fresh_database(server))
            make_table(url, chosen.rows)
            print_table(dialect, url, folder, chosen)


def _of(dialect: str) -> list[str]:
    return [name for name, (_, dialects, _) in METHODS.items() if dialect in dialects]


def print_table(dialect: str, url: str, folder: Path, chosen: argparse.Namespace) -> None:
    """Measure the methods, one after the other in each round, and print medians."""
    first, *others = _of(dialect)
    wanted = [first, *(name for name in others if chosen.methods in name)]
    measured: dict[str, list[tuple[float, float, int]]] = {name: [] for name in wanted}
    for _ in range(chosen.repeat):
        for name in wanted:
            measured[name].append(measure(name, url, folder))
    base = statistics.median(seconds for seconds, _, _ in measured[first])
    print(f"\n{dialect}, {chosen.rows:,} rows, median of {chosen.repeat}")
    print(f"{'method':32} {'rows/s':>10} {'share':>6} {'peak MB':>8} {'MB':>7}")
    for name, runs in measured.items():
        seconds = statistics.median(each[0] for each in runs)
        peak = max(each[1] for each in runs)
        rate = chosen.rows / seconds
        print(f"{name:32} {rate:>10,.0f} {base / seconds:>6.2f} {peak:>8.0f} {runs[0][2] / 1e6:>7.1f}")


if __name__ == "__main__":
    main()
