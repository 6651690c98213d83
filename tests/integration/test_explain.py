"""What a job would do now, on the real databases; and that looking changes nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import inspect, text

from batchd.cli.main import cli
from batchd.db.explained import explained, plain_sql
from tests.support.databases import open_database

_CONFIG = """
[store]
url = "sqlite:///{folder}/store.db"
[databases.app]
url = "{url}"
[jobs.cleanup]
kind = "cleanup"
schedule = "0 3 * * *"
database = "app"
table = "logs"
column = "created_at"
older_than = "30d"
[jobs.purge]
kind = "sql"
schedule = "0 4 * * *"
database = "app"
statements = "DELETE FROM logs WHERE level = :level; UPDATE logs SET level = 'x'"
params = {{ level = "debug" }}
[jobs.rows]
kind = "each_row"
schedule = "0 5 * * *"
database = "app"
table = "logs"
where = "level = 'debug'"
target = "json:dumps"
[jobs.fan]
kind = "fan_out"
schedule = "0 6 * * *"
database = "app"
table = "logs"
enqueue = {{ job = "purge" }}
[jobs.export]
kind = "csv_export"
schedule = "0 7 * * *"
database = "app"
table = "logs"
path = "{folder}/logs.csv"
[jobs.load]
kind = "csv_import"
schedule = "0 8 * * *"
database = "app"
table = "logs"
path = "{folder}/inbox/*.csv"
[jobs.bring]
kind = "sync"
schedule = "0 9 * * *"
database = "app"
table = "logs"
key = ["level"]
fields = {{ level = "level" }}
file = "{folder}/logs.jsonl"
[jobs.tell]
kind = "report"
schedule = "0 10 * * *"
database = "app"
save_to = "{folder}/report.html"
[jobs.tell.queries.logs]
sql = "SELECT level, count(*) AS logs FROM logs GROUP BY level"
[jobs.health]
kind = "health_check"
[jobs.hook]
kind = "http"
schedule = "0 11 * * *"
url = "https://example.org/hook"
headers = {{ Authorization = "Bearer {secret}" }}
[jobs.shell]
kind = "command"
schedule = "0 12 * * *"
command = ["true"]
"""
_JOBS = ("cleanup", "purge", "rows", "fan", "export", "load", "bring", "tell", "health", "hook", "shell")


@pytest.fixture
def config(tmp_path: Path, database_url: str) -> Path:
    """A config with every kind, and a table of 1,000 rows, two thirds of them old, without an index."""
    database = open_database(database_url)
    moment = "timestamptz" if database.dialect.name == "postgresql" else "text"
    with database.writing() as connection:
        connection.execute(text(f"CREATE TABLE logs (id integer PRIMARY KEY, level text, created_at {moment})"))
        for number in range(1000):
            connection.execute(
                text("INSERT INTO logs VALUES (:id, :level, :at)"),
                {
                    "id": number,
                    "level": "debug" if number % 4 == 0 else "info",
                    "at": "2020-01-01T00:00:00+00:00" if number % 3 else "2999-01-01T00:00:00+00:00",
                },
            )
    database.close()
    file = tmp_path / "config.toml"
    file.write_text(_CONFIG.format(folder=tmp_path, url=database_url, secret="s3cr3t-bearer"))
    file.chmod(0o600)
    return file


def _explained(config: Path, job: str) -> dict[str, Any]:

    done = CliRunner().invoke(cli, ["explain", job, "--config", str(config), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _everything(url: str) -> Any:
    database = open_database(url)
    with database.reading() as connection:
        tables = inspect(connection).get_table_names()
        rows = {table: connection.execute(text(f'SELECT * FROM "{table}" ORDER BY 1')).all() for table in tables}
        indexes = {
            table: sorted(str(each["name"]) for each in inspect(connection).get_indexes(table)) for table in tables
        }
    database.close()
    return rows, indexes


def test_each_kind_is_explained_and_nothing_changes(config: Path, database_url: str, tmp_path: Path) -> None:
    """Every row, every index and every file is as it was; no secret is shown."""
    before, files = _everything(database_url), sorted(str(path) for path in tmp_path.rglob("*") if "-" not in path.name)
    found = {job: _explained(config, job) for job in _JOBS}
    assert _everything(database_url) == before
    assert sorted(str(path) for path in tmp_path.rglob("*") if "-" not in path.name) == files
    assert "s3cr3t" not in str(found)
    assert all(each["problem"] is None for each in found.values())
    with_sql = {job for job, each in found.items() if each["statements"]}
    assert with_sql == set(_JOBS) - {"hook", "shell"}
    counts = {job: each["statements"][0]["rows"] for job, each in found.items() if each["statements"]}
    assert (counts["cleanup"], counts["purge"], counts["rows"], counts["fan"]) == (666, 250, 250, 1000)
    assert all(each["statements"][0]["locks"] for each in found.values() if each["statements"])


def test_a_missing_index_is_named_with_the_statement_that_makes_it(config: Path, database_url: str) -> None:
    """Once it is made as told, there is nothing to advise."""
    (advice,) = _explained(config, "cleanup")["advice"]
    assert advice.startswith("CREATE INDEX")
    assert "ON logs (created_at);" in advice or 'ON "logs" (created_at);' in advice or "logs (created_at);" in advice
    database = open_database(database_url)
    with database.writing() as connection:
        connection.execute(text(advice.replace(" CONCURRENTLY", "")))
    database.close()
    found = _explained(config, "cleanup")
    assert found["advice"] == []
    assert found["statements"][0]["plan"]["plan"]


_ODD_TABLES = (
    "CREATE TABLE parts (id bigint, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
    "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2000-01-01') TO ('2020-01-01')",
    'CREATE TABLE "Odd Name" ("Id" int PRIMARY KEY, "When" timestamptz, level text)',
    """INSERT INTO "Odd Name" SELECT n, now(), 'x' FROM generate_series(1, 40000) AS n""",
    'ANALYZE "Odd Name"',
    "DROP ROLE IF EXISTS onlooker",
    "CREATE ROLE onlooker LOGIN",
)
_ODD_CONFIG = """
[store]
url = "sqlite:///{folder}/store.db"
[databases.app]
url = "{url}"
[jobs.parts]
kind = "cleanup"
database = "app"
table = "parts"
column = "at"
older_than = "30d"
[jobs.odd]
kind = "cleanup"
database = "app"
table = '"Odd Name"'
column = '"When"'
older_than = "30d"
[jobs.statements]
kind = "sql"
database = "app"
statements = [
  "UPDATE \\"Odd Name\\" SET level = NULL WHERE level = 'x'",
  "DELETE FROM \\"Odd Name\\" WHERE level = 'y'",
  "SELEC 1",
]
"""


def test_odd_tables_are_explained(tmp_path: Path, postgres_url: str) -> None:
    """Partitions, names in quotes, rows meant by an UPDATE, one advice for two statements, no SQL, and no rights."""
    database, config = open_database(postgres_url), tmp_path / "odd.toml"
    with database.writing() as connection:
        for made in _ODD_TABLES:
            connection.execute(text(made))
    config.write_text(_ODD_CONFIG.format(folder=tmp_path, url=postgres_url))
    (for_parts,) = _explained(config, "parts")["advice"]
    assert for_parts == "CREATE INDEX parts_at_idx ON public.parts (at);"
    (for_odd,) = _explained(config, "odd")["advice"]
    assert for_odd == 'CREATE INDEX CONCURRENTLY odd_name_when_idx ON public."Odd Name" ("When");'
    found = _explained(config, "statements")
    assert found["statements"][0]["plan"]["rows"] == 40_000
    assert found["statements"][0]["plan"]["scanned"] == ['"Odd Name"']
    assert found["advice"] == ['CREATE INDEX CONCURRENTLY ON "Odd Name" (level);']
    assert "not known" in found["statements"][2]["locks"]
    with database.writing() as connection:
        for advice in (for_parts, for_odd.replace(" CONCURRENTLY", "")):
            connection.execute(text(advice))
    try:
        config.write_text(config.read_text().replace("//postgres:", "//onlooker:"))
        done = CliRunner().invoke(cli, ["explain", "parts", "--config", str(config)])
        assert done.exit_code == 13
        assert "it would fail: permission denied for table parts" in done.stderr
    finally:
        with database.writing() as connection:
            connection.execute(text("DROP ROLE onlooker"))
        database.close()


def test_a_walk_through_an_index_is_no_walk_through_the_table(sqlite_url: str) -> None:
    """SQLite calls both a scan."""
    database = open_database(sqlite_url)
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE pairs (a int, b int)"))
        connection.execute(text("CREATE INDEX pairs_a ON pairs (a)"))
    plan = plain_sql(database.dialect.explain("SELECT a FROM pairs ORDER BY a"))
    found = explained(database, plan, timedelta(seconds=5))
    assert (found.scanned, found.indexes) == ((), ("pairs_a",))
    database.close()


def test_a_statement_that_the_server_refuses_is_told(config: Path) -> None:
    """A table that is not there is the job's problem, said before its run says it."""
    config.write_text(config.read_text().replace('table = "logs"\ncolumn', 'table = "logz"\ncolumn'))
    done = CliRunner().invoke(cli, ["explain", "cleanup", "--config", str(config)])
    assert done.exit_code == 13
    assert "there is no table logz" in done.stderr
