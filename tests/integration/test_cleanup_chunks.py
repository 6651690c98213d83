"""cleanup's chunks: ties, stops and resumes, locks, foreign keys, archives."""

from __future__ import annotations

import csv
import gzip
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from batchd.db.engine import Database
from batchd.errors import JobError, RunInterrupted
from tests.support.cleaning import NOW, clean, context_on, execute, fetch, logs_table
from tests.support.databases import open_database
from tests.support.job_context import DirectContext
from tests.support.waiting import wait_until

_OLD = int(NOW.timestamp() * 1000) - 30 * 86_400_000


def _archived_ids(file: Path) -> list[int]:
    content = gzip.decompress(file.read_bytes()).decode()
    if file.name.endswith(".csv.gz"):
        return [int(row["id"]) for row in csv.DictReader(io.StringIO(content))]
    return [json.loads(line)["id"] for line in content.splitlines()]


def test_a_tie_wider_than_a_chunk_is_split_by_key(database: Database) -> None:
    """Rows of one instant go in several chunks, and none of them holds more than the batch size."""
    execute(database, "CREATE TABLE logs (id bigint PRIMARY KEY, at bigint)", "CREATE INDEX logs_at ON logs (at)")
    instants = [_OLD - 5] * 3 + [_OLD] * 57 + [_OLD + 5] * 4
    with database.writing() as connection:
        rows = [{"id": number, "at": at} for number, at in enumerate(instants)]
        connection.execute(text("INSERT INTO logs VALUES (:id, :at)"), rows)
    result = clean(database, batch_size=10)
    assert fetch(database, "SELECT id FROM logs") == []
    assert result["rows_deleted"] == 64
    assert isinstance(result["chunks"], int)
    assert result["chunks"] >= 7


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.jsonl.gz"])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_stop_at_any_chunk_archives_every_row_once(
    database: Database, tmp_path: Path, name: str, *, indexed: bool
) -> None:
    """However often the run is stopped, the archive holds each deleted row once, and nothing else goes."""
    logs_table(database, 400, indexed=indexed)
    archive = tmp_path / "kept" / name
    before = set(fetch(database, "SELECT id FROM logs"))
    context = context_on(database, stop_at_check=1)
    result = None
    for stop_at in range(1, 30):
        try:
            result = clean(database, context, batch_size=20, archive_to=str(archive))
            break
        except RunInterrupted:
            # A killed attempt may have written a member whose delete never committed.
            with archive.open("ab") as file:
                file.write(b"torn")
            context = context.next_attempt(stop_at_check=stop_at % 4 + 1)
    assert result is not None
    left = set(fetch(database, "SELECT id FROM logs"))
    assert left == set(range(1, 242))
    archived = _archived_ids(archive)
    assert sorted(archived) == sorted(before - left)
    assert result["rows_deleted"] == len(archived)
    assert result["bytes_archived"] == archive.stat().st_size


def test_a_commit_that_fails_leaves_no_row_in_the_archive(database: Database, tmp_path: Path) -> None:
    """What was written for a chunk that rolled back is cut off by the next attempt."""
    logs_table(database, 300)
    archive = tmp_path / "rows.jsonl.gz"

    class FailsOnce(DirectContext):
        saves = 0

        def save_checkpoint(self, connection: Any, database: Database, state: Any) -> None:
            super().save_checkpoint(connection, database, state)
            self.saves += 1
            if self.saves == 2:
                # Stand-in for a crash between the archive's fsync and the commit.
                archive.write_bytes(archive.read_bytes() + b"half a member")
                raise RuntimeError

    first = FailsOnce({"app": database}, clock=context_on(database).clock)
    with pytest.raises(RuntimeError):
        clean(database, first, batch_size=20, archive_to=str(archive))
    clean(database, context_on(database, run_id=first.run_id, fence=2), batch_size=20, archive_to=str(archive))
    assert sorted(_archived_ids(archive)) == sorted(set(range(1, 301)) - set(fetch(database, "SELECT id FROM logs")))


def test_a_resumed_run_keeps_its_first_cutoff(database: Database) -> None:
    """Rows that only became old between two attempts belong to the next run."""
    logs_table(database, 400)

    class Later:
        def now(self) -> Any:
            return NOW.replace(month=12)

        def monotonic(self) -> float:
            return 0.0

    first = context_on(database, stop_at_check=3)
    with pytest.raises(RunInterrupted):
        clean(database, first, batch_size=20)
    clean(database, first.next_attempt(clock=Later()), batch_size=20)
    assert len(fetch(database, "SELECT id FROM logs")) == 241


def test_a_foreign_key_in_the_way_is_named(database: Database) -> None:
    """The error names the referencing table and its constraint, and is not retried; nothing of the chunk is gone."""
    execute(
        database,
        "CREATE TABLE users (id integer PRIMARY KEY, at bigint)",
        "CREATE INDEX users_at ON users (at)",
        "CREATE TABLE orders (id integer PRIMARY KEY, user_id integer CONSTRAINT orders_user REFERENCES users (id))",
        f"INSERT INTO users VALUES (1, {_OLD}), (2, {_OLD + 1})",
        "INSERT INTO orders VALUES (10, 2)",
    )
    with pytest.raises(JobError, match=r"users are still referenced by (public\.)?orders") as raised:
        clean(database, table="users")
    assert not raised.value.retryable
    assert ("orders_user" if database.dialect.name == "postgresql" else "user_id") in raised.value.message
    assert fetch(database, "SELECT count(*) FROM users") == [2]


def test_a_constraint_that_fails_at_the_commit_leaves_the_archive_as_it_was(database: Database, tmp_path: Path) -> None:
    """A deferred foreign key is noticed after the rows were archived; they are taken out of the file again."""
    execute(
        database,
        "CREATE TABLE logs (id integer PRIMARY KEY, at bigint)",
        "CREATE TABLE notes (log_id integer REFERENCES logs (id) DEFERRABLE INITIALLY DEFERRED)",
        f"INSERT INTO logs VALUES (1, {_OLD}), (2, {_OLD + 1})",
        "INSERT INTO notes VALUES (2)",
    )
    archive = tmp_path / "logs.csv.gz"
    with pytest.raises(JobError, match="still referenced"):
        clean(database, archive_to=str(archive))
    assert archive.stat().st_size == 0
    assert fetch(database, "SELECT count(*) FROM logs") == [2]


def test_mixed_case_and_odd_names_work(database: Database) -> None:
    """Names that need quotes are found with them, and without where only one can be meant."""
    execute(
        database,
        'CREATE TABLE "Session" ("Id" text PRIMARY KEY, "expiresAt" bigint, "100% ""odd""" text)',
        f"INSERT INTO \"Session\" VALUES ('a', {_OLD}, '1:2'), ('b', {_OLD * 2}, '50%')",
    )
    count = clean(database, table="session", column='"expiresAt"', expired=True, dry_run=True)["rows_matching"]
    assert count == 1
    where = '"100% ""odd""" LIKE \'%:%\''
    result = clean(database, table='"Session"', column='"expiresAt"', expired=True, where=where)
    assert result["rows_deleted"] == 1
    assert fetch(database, 'SELECT "Id" FROM "Session"') == ["b"]


def test_a_schema_qualified_table_is_found(database: Database) -> None:
    """`audit.logs` means that schema's table, on SQLite `main.logs` the file's."""
    if database.dialect.name == "postgresql":
        execute(database, "CREATE SCHEMA audit", "CREATE TABLE audit.logs (id int PRIMARY KEY, at timestamptz)")
        execute(database, "INSERT INTO audit.logs VALUES (1, '-infinity'), (2, '2020-01-01'), (3, 'infinity')")
        assert clean(database, table="audit.logs")["rows_deleted"] == 2
        with pytest.raises(JobError) as raised:
            clean(database, table="logs")
        assert "audit.logs" in str(raised.value.hint)
    else:
        logs_table(database, 300)
        assert clean(database, table="main.logs")["rows_deleted"] == 59


def test_a_column_without_index_is_warned_about(database: Database) -> None:
    """Without an index the walk follows the key, and a warning says so."""
    logs_table(database, 300, indexed=False)
    context = context_on(database)
    assert clean(database, context)["method"] == "key_windows"
    assert context.log.events("warning") == ["cleanup.index_missing"]
    indexed = context_on(database)
    execute(database, "CREATE INDEX logs_at ON logs (at)")
    assert clean(database, indexed)["method"] == "column_windows"
    assert indexed.log.events("warning") == []


@pytest.mark.parametrize(
    "where",
    [
        "level = ",
        "true) OR (true",
        "1 = 1 THEN 1 ELSE 0 END = 1 OR CASE WHEN 1 = 1",
        "level = 'x'; DROP TABLE logs",
        "1 = 1 /*",
        "no_such_column = 1",
        "\"levle\" <> 'x'",
    ],
)
def test_a_bad_where_deletes_nothing(database: Database, where: str) -> None:
    """A condition that is none, or reaches out of its parentheses, is refused before anything is deleted."""
    logs_table(database, 300)
    with pytest.raises(JobError, match="where") as raised:
        clean(database, where=where)
    assert not raised.value.retryable
    assert len(fetch(database, "SELECT id FROM logs")) == 300


def test_where_narrows_and_a_comment_does_no_harm(database: Database) -> None:
    """Only rows that meet the condition go, also when it ends in a comment."""
    logs_table(database, 300)
    assert clean(database, where="level = 'even' -- not the odd ones")["rows_deleted"] == 30
    assert len(fetch(database, "SELECT id FROM logs")) == 270


def test_max_rows_is_never_exceeded(database: Database) -> None:
    """A run stops at `max_rows`, ties or not, and the next one goes on."""
    logs_table(database, 400)
    execute(database, f"UPDATE logs SET at = {_OLD} WHERE id > 300")
    assert clean(database, max_rows=33, batch_size=10)["rows_deleted"] == 33
    assert len(fetch(database, "SELECT id FROM logs")) == 367
    assert clean(database)["rows_deleted"] == 159 - 33


def test_a_dry_run_counts_and_leaves_everything(database: Database, tmp_path: Path) -> None:
    """Nothing is deleted, archived or written; the count is that of a real run."""
    logs_table(database, 300)
    result = clean(database, dry_run=True, batch_size=7, archive_to=str(tmp_path / "a.csv.gz"))
    assert (result["rows_matching"], result["rows_deleted"]) == (59, 0)
    assert len(fetch(database, "SELECT id FROM logs")) == 300
    assert list(tmp_path.glob("*.gz")) == []


def test_progress_comes_with_a_total(database: Database) -> None:
    """Every chunk reports rows done and an estimate that is never less."""
    logs_table(database, 400)
    context = context_on(database)
    clean(database, context, batch_size=20)
    done, totals = zip(*((done, total) for done, total, _ in context.progressed), strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == 159
    assert all(total is not None and total >= done for done, total in zip(done, totals, strict=True))


def test_a_row_locked_for_a_moment_is_waited_for_in_small_bites(database: Database) -> None:
    """A chunk that meets a lock gives up quickly, is tried again, and succeeds once the lock is gone."""
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has no row locks")
    logs_table(database, 300)
    context = context_on(database)
    with database.engine.connect() as other:
        other.execute(text("SELECT * FROM logs WHERE id = 280 FOR UPDATE"))
        retried = ThreadPoolExecutor(1).submit(
            wait_until, lambda: "cleanup.chunk_retried" in context.log.events(), what="a try that met the lock"
        )
        retried.add_done_callback(lambda _: other.rollback())
        result = clean(database, context, lock_timeout="50ms")
        retried.result()
    assert result["rows_deleted"] == 59


def test_a_row_locked_for_long_ends_the_attempt(database: Database) -> None:
    """The error names the table; what was not locked before it is gone, and the next attempt does the rest."""
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has no row locks")
    logs_table(database, 300)
    context = context_on(database)
    with database.engine.connect() as other:
        other.execute(text("SELECT * FROM logs WHERE id = 242 FOR UPDATE"))
        with pytest.raises(JobError, match="logs stayed locked") as raised:
            clean(database, context, lock_timeout="20ms", batch_size=20)
        assert raised.value.retryable
    clean(database, context.next_attempt())
    assert len(fetch(database, "SELECT id FROM logs")) == 241


def test_an_old_snapshot_elsewhere_changes_nothing(database: Database) -> None:
    """A session that still sees all rows neither stops nor blocks the run."""
    logs_table(database, 2000)
    with database.engine.connect() as other:
        if database.dialect.name == "postgresql":
            other.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        seen = other.execute(text("SELECT count(*) FROM logs")).scalar_one()
        result = clean(database, batch_size=100)
        assert other.execute(text("SELECT count(*) FROM logs")).scalar_one() == seen == 2000
    assert result["rows_deleted"] == 1759


def test_numbers_of_unclear_unit_are_refused(database: Database) -> None:
    """A sentinel such as 0 among milliseconds asks for `column_unit` instead of a guess."""
    logs_table(database, 300)
    execute(database, "UPDATE logs SET at = 0 WHERE id = 300")
    with pytest.raises(JobError, match="seconds or milliseconds") as raised:
        clean(database)
    assert "column_unit" in str(raised.value.hint)
    assert clean(database, column_unit="milliseconds")["rows_deleted"] == 59


def test_an_empty_table_is_a_success(database: Database) -> None:
    """Nothing to do is no error."""
    logs_table(database, 0)
    assert clean(database)["rows_deleted"] == 0


def test_only_the_last_commit_waits_for_the_disk(postgres_url: str, tmp_path: Path) -> None:
    """A crash of the server takes chunks back with their checkpoints, never a run that ended, nor what is archived."""
    database = open_database(postgres_url)
    logs_table(database, 400)
    waits: list[bool] = []

    def look(connection: Connection) -> None:
        ended = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
        if connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()").scalar_one() is not None:
            waits.append(ended == "on")

    event.listen(database.engine, "commit", look)
    clean(database, batch_size=50, older_than="10d", max_rows=100)
    assert waits[-3:] == [False, False, True]
    waits.clear()
    clean(database, batch_size=50, archive_to=str(tmp_path / "logs.csv.gz"))
    assert set(waits) == {True}
    database.close()
