"""Migrations make exactly the tables of `store.schema`, once, wherever they run."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text, update
from structlog.testing import capture_logs

from batchd.clock import SystemClock
from batchd.config.load import Config, load_config
from batchd.config.param_names import register_names
from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.engine.lease import LeaseKeeper
from batchd.engine.running import InHand
from batchd.engine.settings import EngineSettings
from batchd.errors import BatchdError, ExitCode, SchemaMismatch
from batchd.service.first_work import bring_up_to_date
from batchd.service.room_settings import LEASE, REAP_EVERY
from batchd.store import meta as facts
from batchd.store.all_tables import all_tables
from batchd.store.claimed import ClaimRequest
from batchd.store.claims import claim
from batchd.store.enqueue import NewRun, enqueue_in
from batchd.store.known_names import known_names
from batchd.store.migrate import check_version, migrate, migration_sql
from batchd.store.schema import SCHEMA_VERSION, meta
from batchd.store.workers import register, this_process
from tests.support.daemon import write_config
from tests.support.databases import open_database
from tests.support.store_rows import add_schedule


@pytest.fixture
def database_url(empty_url: str) -> str:
    """A database without a table, since these tests make them."""
    return empty_url


def test_the_migrated_tables_are_those_of_the_schema(database: Database) -> None:
    """Alembic sees no difference, and every CHECK of the schema is there."""
    assert migrate(database)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, all_tables()) == []
        inspector = inspect(connection)
        for table in all_tables().tables.values():
            found = {check["name"] for check in inspector.get_check_constraints(table.name)}
            wanted = {c.name for c in table.constraints if c.__visit_name__ == "check_constraint"}
            assert {str(name).rpartition(".")[2] for name in wanted} <= {str(name) for name in found}


def test_autovacuum_comes_early_to_the_hot_tables(database: Database) -> None:
    """Where a fifth of a million rows would be dead before it came by itself."""
    if database.dialect.name != "postgresql":
        pytest.skip("SQLite has no autovacuum of this sort")
    migrate(database)
    with database.reading() as connection:
        asked = text("SELECT reloptions FROM pg_class WHERE relname IN ('batchd_runs', 'batchd_attempts')")
        for options in connection.execute(asked).scalars():
            assert "autovacuum_vacuum_scale_factor=0.01" in options


def test_a_second_migration_changes_nothing(database: Database) -> None:
    """The store keeps its uuid, and the version check is content."""
    migrate(database)
    name = facts.store_id(database)
    assert uuid.UUID(name).version == 4
    assert not migrate(database)
    assert facts.store_id(database) == name
    check_version(database)


def test_processes_that_migrate_at_once_do_not_meet(database: Database, database_url: str) -> None:
    """Four at once, each with a pool of its own: all succeed and one store id comes out."""
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def start_up() -> None:
        own = open_database(database_url)
        try:
            barrier.wait(10)
            migrate(own)
        except BaseException as error:  # noqa: BLE001 (handed to the test's thread)
            failures.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=start_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    check_version(database)


def test_a_store_of_version_1_is_upgraded_in_place(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs and its uuid stay, the tables are those of the schema, and its runs can have children."""
    monkeypatch.setattr("batchd.store.migrate.SCHEMA_VERSION", 1)
    assert migrate(database)
    add_old = text(
        "INSERT INTO batchd_runs (id, kind, queue, priority, params, available_at, retry, state, max_attempts,"
        " created_at, created_by) VALUES (7, 'cleanup', 'default', 0, '{}', :now, '{}', 'queued', 3, :now, 'cli')"
    )
    with database.writing() as connection:
        connection.execute(add_old, {"now": "2026-01-01T00:00:00.000000Z"})
    name = facts.store_id(database)
    monkeypatch.undo()
    with pytest.raises(SchemaMismatch):
        check_version(database)
    assert migrate(database)
    assert facts.store_id(database) == name
    check_version(database)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, all_tables()) == []
    with database.writing() as connection:
        child = NewRun(kind="noop", key="1")
        assert len(enqueue_in(connection, database, [child], created_by=CreatedBy.JOB, parent_id=7)) == 1
    assert [claimed.run_id for claimed in claim(database, ClaimRequest("w", 1, timedelta(seconds=9), {}))] == [7]


@pytest.mark.parametrize("had", ["older ones", "none"])
def test_a_store_of_version_11_gets_todays_ways_to_enqueue_by_sql(
    database: Database, monkeypatch: pytest.MonkeyPatch, had: str
) -> None:
    """Whatever its own version 3 has made: that was changed in place more than once."""
    monkeypatch.setattr("batchd.store.migrate.SCHEMA_VERSION", 11)
    assert migrate(database)
    dialect = database.dialect.name
    with database.writing() as connection:
        for statement in _FIRST_WAYS[dialect] if had == "older ones" else ():
            connection.execute(text(statement))
    monkeypatch.undo()
    assert migrate(database)
    add_schedule(database, "welcome", kind="mail", params={"to": "ann"}, limit_key="mail:{to}")
    call = {
        "postgresql": "SELECT batchd_enqueue('welcome')",
        "sqlite": "INSERT INTO batchd_enqueue (name) VALUES ('welcome')",
    }
    with database.writing() as connection:
        connection.execute(text(call[dialect]))
        queued = connection.execute(text("SELECT schedule_id, kind, limit_key FROM batchd_runs")).all()
    assert [tuple(row) for row in queued] == [("welcome", "mail", "mail:ann")]


_FIRST_WAYS = {
    "postgresql": [
        """CREATE FUNCTION batchd_enqueue_rows(wanted jsonb)
        RETURNS TABLE (place bigint, schedule_id text, complaint text)
        LANGUAGE sql STABLE AS 'SELECT CAST(1 AS bigint), CAST(NULL AS text), CAST(NULL AS text)'""",
        """CREATE FUNCTION batchd_enqueue_many(wanted jsonb, created_by text DEFAULT 'sql')
        RETURNS TABLE (place bigint, run_id bigint, outcome text, complaint text)
        LANGUAGE sql AS 'SELECT CAST(1 AS bigint), CAST(7 AS bigint), CAST(NULL AS text), CAST(NULL AS text)'""",
    ],
    "sqlite": [
        "CREATE VIEW batchd_enqueue (name, params) AS SELECT NULL, NULL WHERE 0",
        "CREATE TRIGGER batchd_enqueue_insert INSTEAD OF INSERT ON batchd_enqueue BEGIN SELECT 1; END",
    ],
}


def test_a_newer_store_is_left_alone(database: Database) -> None:
    """Migrating and checking both stop with the exit code for it."""
    migrate(database)
    with database.writing() as connection:
        connection.execute(update(meta).where(meta.c.key == "schema_version").values(value=str(SCHEMA_VERSION + 1)))
    for call in (migrate, check_version):
        with pytest.raises(SchemaMismatch, match="newer batchd") as raised:
            call(database)
        assert raised.value.exit_code is ExitCode.SCHEMA_MISMATCH


def test_a_database_that_refuses_the_tables_is_told_in_one_line(database: Database) -> None:
    """Here another table has the name of one; rights are refused the same way."""
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE batchd_runs (id INTEGER)"))
    with pytest.raises(BatchdError, match=r"^store 'test': its tables cannot be made or changed: [^\n]+ exists$"):
        migrate(database)


def test_a_running_daemon_tells_once_of_a_newer_store(database: Database) -> None:
    """And goes on: a deploy that was rolled back leaves it there, and what it does may well still work."""
    migrate(database)
    me, clock, forgotten = this_process(), SystemClock(), threading.Event()
    register(database, me, slots=1)
    settings = EngineSettings(1, {}, LEASE, REAP_EVERY, timedelta(seconds=1))
    keeper = LeaseKeeper(database, settings, me.id, InHand(clock), clock, on_forgotten=forgotten.set)
    with capture_logs() as logs:
        for version in (SCHEMA_VERSION, SCHEMA_VERSION + 1, SCHEMA_VERSION + 1):
            with database.writing() as connection:
                connection.execute(update(meta).where(meta.c.key == "schema_version").values(value=str(version)))
            keeper.beat_now()
            keeper.run_once(clock.now())
    told = [(line["event"], line["found"], line["known"]) for line in logs]
    assert told == [("store.newer", SCHEMA_VERSION + 1, SCHEMA_VERSION)]
    assert not forgotten.is_set()


def test_a_store_shares_a_database_with_an_application(database: Database) -> None:
    """Other tables, even Alembic's own, stay as they are."""
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
    with pytest.raises(SchemaMismatch, match="no batchd tables"):
        check_version(database)
    migrate(database)
    with database.reading() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["theirs"]


def test_the_printed_sql_makes_the_same_store(tmp_path: Path) -> None:
    """SQLite runs it as it is printed."""
    path = tmp_path / "printed.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(migration_sql("sqlite"))
    connection.close()
    opened = open_database(f"sqlite:///{path}")
    check_version(opened)
    opened.close()
    assert "gen_random_uuid()" in migration_sql("postgresql")


class _Errand:
    """The first work of another process, which ends as the test says."""

    def __init__(self, database: Database, config: Config, *, ends_well: bool) -> None:
        self._database = database
        self._config = config
        self._ends_well = ends_well
        self.calls: list[str] = []

    def done(self) -> bool:
        self.calls.append("done")
        if self._ends_well:
            migrate(self._database)
            register_names(self._database, self._config.kinds, ["default"])
        return self._ends_well

    def drop(self) -> None:
        self.calls.append("drop")


@pytest.mark.parametrize("ends_well", [True, False])
def test_an_errand_does_what_there_is_to_do_and_is_let_go(
    database: Database, tmp_path: Path, *, ends_well: bool
) -> None:
    """Tables, and the names of kinds; a migration that it does not bring to a good end is done here."""
    config = load_config(write_config(tmp_path, {"jobs": {}}), {})
    errand = _Errand(database, config, ends_well=ends_well)
    assert bring_up_to_date(database, config, errand)
    check_version(database)
    with database.reading() as connection:
        assert bool(known_names(connection, []).kinds) == ends_well
    names_only, needless = _Errand(database, config, ends_well=True), _Errand(database, config, ends_well=True)
    assert not bring_up_to_date(database, config, names_only)
    assert not bring_up_to_date(database, config, needless)
    assert (errand.calls, needless.calls) == (["done", "drop"], ["drop"])
    assert names_only.calls == (["drop"] if ends_well else ["done", "drop"])
