"""`db.engine` behaves alike on every dialect."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, literal, select, text

from batchd.db.dialect import DatabaseSettings, Topic
from batchd.db.engine import Database, Interrupts, masked, secrets_in
from batchd.db.sqlite import SqliteDialect
from batchd.db.types import UtcTimestamp
from batchd.domain.job import JsonValue
from batchd.domain.run import CreatedBy
from batchd.errors import DatabaseUnavailable, RunInterrupted, StopReason
from batchd.store.enqueue import NewRun, enqueue
from batchd.store.schema import meta, metadata, runs
from tests.support.databases import open_database


def test_the_databases_clock_is_a_moment_in_utc(database: Database) -> None:
    """`now` and `now_plus` read back as aware datetimes near the local clock."""
    with database.reading() as connection:
        now, later = connection.execute(select(database.dialect.now(), database.dialect.now_plus(90))).one()
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)
    assert timedelta(seconds=89) < later - now < timedelta(seconds=91)


def test_a_moment_survives_the_round_trip(database: Database) -> None:
    """A bound timestamp comes back equal, to the microsecond."""
    moment = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
    with database.reading() as connection:
        assert connection.execute(select(literal(moment, UtcTimestamp()))).scalar_one() == moment


def test_what_python_takes_for_equal_stays_apart_in_documents(database: Database) -> None:
    """True, 1 and 1.0 are three values of JSON, also where many rows are sent at once."""
    given: list[dict[str, JsonValue]] = [{"n": 1}, {"n": True}, {"n": 1.0}]
    enqueue(database, [NewRun(kind="noop", params=params) for params in given], created_by=CreatedBy.CLI)
    with database.reading() as connection:
        stored = connection.execute(select(runs.c.params).order_by(runs.c.id)).scalars().all()
    assert str(stored) == str(given)


def test_a_limit_of_a_month_is_a_limit(database_url: str) -> None:
    """Databases count milliseconds in 32 bits: 24 days are the most that they know."""
    month = timedelta(days=30)
    settings = DatabaseSettings("test", database_url, 1, timedelta(seconds=5), month, month)
    database = Database(settings)
    shown = "PRAGMA busy_timeout" if database.dialect.name == "sqlite" else "SHOW lock_timeout"
    with contextlib.closing(database), database.writing() as connection:
        database.dialect.set_for_transaction(connection, lock_timeout=month, statement_timeout=month)
        assert str(connection.exec_driver_sql(shown).scalar_one()) in {"2073600000", "2147483647ms"}


def test_a_failed_write_leaves_nothing(database: Database) -> None:
    """`writing` rolls back on any exception."""
    metadata.create_all(database.engine)
    with pytest.raises(RuntimeError), database.writing() as connection:
        connection.execute(insert(meta).values(key="a", value="b"))
        raise RuntimeError
    with database.reading() as connection:
        assert connection.execute(select(meta).where(meta.c.key == "a")).all() == []


def test_another_thread_ends_a_running_statement(database: Database) -> None:
    """`Interrupts.cancel` turns the statement that it ended into RunInterrupted with the reason."""
    forever = (
        "SELECT pg_sleep(60)"
        if database.dialect.name == "postgresql"
        else "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    interrupts = Interrupts()
    started = threading.Event()

    def cancel() -> None:
        started.wait(10)
        interrupts.cancel(StopReason.TIMEOUT)

    canceller = threading.Timer(0.3, cancel)
    canceller.start()
    with pytest.raises(RunInterrupted) as raised, database.reading(interrupts) as connection:
        started.set()
        connection.execute(text(forever))
    assert raised.value.reason is StopReason.TIMEOUT
    canceller.join()
    with pytest.raises(RunInterrupted), database.reading(interrupts):
        pass


class SlowToCancel(SqliteDialect):
    """A dialect whose cancel takes until somebody lets it go, as one over a slow network does."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()

    def cancel(self, dbapi_connection: Any, *, within: timedelta) -> None:
        self.began.set()
        assert self.may_end.wait(10)
        super().cancel(dbapi_connection, within=within)


def test_a_cancel_never_hits_the_next_user_of_a_connection(sqlite_url: str) -> None:
    """A transaction whose statement is being cancelled keeps its connection until the cancel is over."""
    database = open_database(sqlite_url)
    database.dialect = slow = SlowToCancel()
    interrupts, left = Interrupts(), threading.Event()

    def finish() -> None:
        with database.reading(interrupts) as connection:
            connection.execute(text("SELECT 1"))
            threading.Thread(target=interrupts.cancel, args=(StopReason.CANCELLED,)).start()
            assert slow.began.wait(10)
        left.set()

    finishing = threading.Thread(target=finish)
    finishing.start()
    assert slow.began.wait(10)
    assert not left.wait(0.3)
    slow.may_end.set()
    assert left.wait(10)
    finishing.join()
    database.close()


def test_a_commit_elsewhere_wakes_a_listener(database: Database) -> None:
    """A wake source hears of a committed write by another connection."""
    metadata.create_all(database.engine)
    source = database.dialect.wake_source(database.engine)
    try:
        with database.writing() as connection:
            connection.execute(insert(meta).values(key="a", value="b"))
            database.dialect.notify(connection, [Topic.RUNS])
        assert Topic.RUNS in source.wait(timedelta(seconds=5))
    finally:
        source.close()


def test_passwords_never_show_in_a_masked_url() -> None:
    """Neither the userinfo's nor the query's; and what is masked is a secret for the log, too."""
    url = "postgresql://u:hunter1@h/d?sslpassword=hunter2&client_secret=hunter3"
    assert "hunter" not in masked(url)
    assert secrets_in(url) == {"hunter1", "hunter2", "hunter3"}


def test_a_sqlite_file_that_must_exist_is_not_made(tmp_path: Path) -> None:
    """A typo in a path is an unreachable database, not an empty one."""
    settings = replace(open_database(f"sqlite:///{tmp_path / 'app.db'}").settings, must_exist=True)
    with contextlib.closing(Database(settings)) as database:
        with pytest.raises(DatabaseUnavailable, match="there is no file"), database.writing():
            pass
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "app.db").touch()
        with database.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE t (id integer)")
