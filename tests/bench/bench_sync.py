"""How fast sync brings a table up to an API, what it writes for that, and how much memory it takes.

    python -m tests.bench.bench_sync --records 1000000 --databases postgresql,sqlite

The table holds the API's records but for 1 % that differ, 0.1 % that are new and 0.1 % that are gone. sync runs in a
process of its own over HTTP, pages of 1,000, so that its peak memory is its own. Beside it the loop that everybody
writes first, on a sample of the same records over the same API: find the row, compare, update if it differs, each row
committed. WAL and dead rows are PostgreSQL's own figures; full page images make the first write after a checkpoint
dear, whatever writes, so they are told with and without.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import text

from batchd.db.engine import Database
from batchd.jobs.kinds.sync import KIND
from tests.bench.bench_cleanup import opened
from tests.support.databases import open_database
from tests.support.job_context import DirectContext

_PAGE = 1_000
_FIELDS = {"id": "id", "email": "contact.email", "name": "name", "city": "address.city", "score": "score", "at": "at"}


@dataclass(frozen=True)
class Measured:
    """One run."""

    seconds: float
    records: int
    peak_mb: float
    result: dict[str, Any]


def record(number: int) -> dict[str, Any]:
    """A record of the API."""
    return {
        "id": number,
        "contact": {"email": f"user{number}@example.org", "phone": None},
        "name": f"User Number {number}",
        "address": {"city": f"City {number % 977}", "zip": f"{number % 100_000:05}"},
        "score": number % 1000 / 8,
        "at": f"2026-01-01T00:00:{number % 60:02}Z",
        "unused": "something that no column takes",
    }


def serve(records: int, port: Any) -> None:
    """Answer `/users?page=N` until the process is ended; pages are made once, as a cache before an API would."""
    gone = records // 1000
    pages = [
        json.dumps({"items": [record(n) for n in range(start, min(start + _PAGE, records + 1))]}).encode()
        for start in range(gone + 1, records + 1, _PAGE)
    ]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            page = int(parse_qs(urlsplit(self.path).query)["page"][0])
            body = pages[page - 1] if page <= len(pages) else b'{"items": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()


def fill(database: Database, records: int) -> None:
    """Make the table: the API's records, of which every hundredth differs and the last thousandth is not there yet."""
    is_postgres = database.dialect.name == "postgresql"
    known = records - records // 1000
    moment = "printf('2026-01-01T00:00:%02dZ', n % 60)"
    if is_postgres:
        moment = "timestamptz '2026-01-01T00:00:00Z' + make_interval(secs => n % 60)"
    numbers = (
        f"generate_series(1, {known}) AS s(n)"
        if is_postgres
        else f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {known}) SELECT n FROM s)"
    )
    with database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS users")
        connection.exec_driver_sql(
            "CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL, name text, city text, "
            f"score numeric, at {'timestamptz' if is_postgres else 'text'})"
        )
        connection.exec_driver_sql(
            "INSERT INTO users SELECT n, 'user' || n || '@example.org', "
            "CASE WHEN n %% 100 = 0 THEN 'Old Name ' ELSE 'User Number ' END || n, "
            f"'City ' || (n %% 977), (n %% 1000) / 8.0, {moment.replace('%', '%%')} FROM {numbers}"
            if is_postgres
            else "INSERT INTO users SELECT n, 'user' || n || '@example.org', "
            "CASE WHEN n % 100 = 0 THEN 'Old Name ' ELSE 'User Number ' END || n, "
            f"'City ' || (n % 977), (n % 1000) / 8.0, {moment} FROM {numbers}"
        )
        connection.exec_driver_sql("CREATE INDEX users_email ON users (email)")
    quieten(database, checkpoint=True)


def quieten(database: Database, *, checkpoint: bool) -> None:
    """Vacuum, and make a checkpoint."""
    if database.dialect.name != "postgresql":
        database.dialect.tidy(database.engine, thoroughly=True)
        return
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE users")
        if checkpoint:
            connection.exec_driver_sql("CHECKPOINT")


def scalar(database: Database, query: str) -> Any:
    """Return one value."""
    with database.reading() as connection:
        return connection.execute(text(query)).scalar_one()


def run_sync(url: str, api: str) -> None:
    """Run the kind in this process and print what it took as JSON: what the child of `measured` does."""
    database = open_database(url)
    values = {
        "database": "app",
        "table": "users",
        "key": ["id"],
        "fields": _FIELDS,
        "url": f"{api}/users",
        "records": "items",
        "paging": {"by": "page"},
        "on_missing": "delete",
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    result = KIND.run(KIND.params.model_validate(values), DirectContext({"app": database}, run_id=time.time_ns()))
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "result": result, "peak_mb": peak / 1024, "before_mb": before / 1024}))


def measured(url: str, api: str) -> Measured:
    """Run sync in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.bench_sync", "--child", url, api]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    return Measured(told["seconds"], told["result"]["fetched"], told["peak_mb"], told["result"])


def row_by_row(database: Database, api: str, sample: int) -> float:
    """Find, compare and update one record after the other; return records a second."""
    find = text("SELECT email, name, city, score, at FROM users WHERE id = :id")
    change = text(
        "UPDATE users SET email = :email, name = :name, city = :city, score = :score, at = :at WHERE id = :id"
    )
    add = text("INSERT INTO users VALUES (:id, :email, :name, :city, :score, :at)")
    done, started = 0, time.monotonic()
    with database.engine.connect() as connection:  # one for all rows: the loop at its best
        for page in range(1, -(-sample // _PAGE) + 1):
            with urllib.request.urlopen(f"{api}/users?page={page}") as answer:
                items = json.loads(answer.read())["items"]
            for item in items:
                wanted = {
                    "id": item["id"],
                    "email": item["contact"]["email"],
                    "name": item["name"],
                    "city": item["address"]["city"],
                    "score": item["score"],
                    "at": item["at"],
                }
                found = connection.execute(find, {"id": item["id"]}).one_or_none()
                if found is None:
                    connection.execute(add, wanted)
                elif [found.email, found.name, found.city, float(found.score)] != list(wanted.values())[1:5]:
                    connection.execute(change, wanted)
                connection.commit()
                done += 1
    return done / (time.monotonic() - started)


def report(kind: str, database: Database, api: str, records: int, sample: int) -> None:
    """Measure and print one database."""
    url, is_postgres = database.settings.url, database.dialect.name == "postgresql"
    fill(database, records)
    print(f"\n{kind}: {records:,} records, 1 % changed, 0.1 % new, 0.1 % gone")
    for note, checkpoint in (("just after a checkpoint", True), ("later", False))[: 2 if is_postgres else 1]:
        if not checkpoint:  # the same differences again; their pages have been written since the checkpoint
            with database.writing() as connection:
                connection.exec_driver_sql("UPDATE users SET name = 'Old Name ' || id WHERE mod(id, 100) = 0")
                connection.exec_driver_sql(f"DELETE FROM users WHERE id > {records - records // 1000}")
                connection.exec_driver_sql(
                    f"INSERT INTO users SELECT n, 'x', 'x', 'x', 1, now() FROM generate_series(1, {records // 1000}) n"
                )
            quieten(database, checkpoint=False)
        lsn = scalar(database, "SELECT pg_current_wal_lsn()::text") if is_postgres else None
        run = measured(url, api)
        counts = {name: run.result[name] for name in ("added", "changed", "removed", "unchanged", "columns")}
        print(
            f"  {run.records / run.seconds:>10,.0f} records/s  {run.seconds:.1f} s  peak {run.peak_mb:.0f} MB  {counts}"
        )
        if is_postgres:
            wal = scalar(database, f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{lsn}')") / 1_000_000
            time.sleep(1.5)  # the statistics of the child's connections arrive within a second
            dead = scalar(database, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'users'")
            print(f"             WAL {wal:,.1f} MB {note}; dead rows in the table {dead:,}")
    unchanged = measured(url, api)
    print(f"  {unchanged.records / unchanged.seconds:>10,.0f} records/s when nothing has changed")
    fill(database, records)
    loop = row_by_row(database, api, sample)
    print(f"  {loop:>10,.0f} records/s row by row (find, compare, update; {sample:,} records)")
    print(f"  {run.records / run.seconds / loop:>10.1f} times as fast")


def main() -> None:
    """Print one block a database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=5_000)
    parser.add_argument("--databases", default="postgresql,sqlite", help="of sqlite, postgresql, postgresql-18")
    parser.add_argument("--child", nargs=2, metavar=("URL", "API"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_sync(*options.child)
        return
    receives, sends = multiprocessing.get_context("spawn").Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(options.records, sends), daemon=True)
    server.start()
    api = f"http://127.0.0.1:{receives.recv()}"
    try:
        for kind in options.databases.split(","):
            with tempfile.TemporaryDirectory(prefix="bench") as folder, opened(kind, Path(folder)) as database:
                report(kind, database, api, options.records, options.sample)
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
