"""The seven silent failures of stock APScheduler, S1 to S7: each shown in its own parts, and shown to be gone here.

Each test runs APScheduler 3.11 with its `SQLAlchemyJobStore` first, does to it what a database, a deployment or a
kill does, and sees it fail; then it does the same to batchd.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, text, update

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.job import Overlap
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import AlreadyRunning
from batchd.scheduler.scheduler import Scheduler, SchedulerSettings
from batchd.store import control
from batchd.store.history import Retention
from batchd.store.migrate import migrate
from batchd.store.schedules import reconcile
from batchd.store.schema import runs, schedules
from batchd.store.single_daemon import hold_sqlite_lock
from tests.support.daemon import Daemon, write_config
from tests.support.databases import open_database
from tests.support.definitions import job
from tests.support.launcher import PROJECT
from tests.support.processes import RunningProcess
from tests.support.stock import note, running, stock_scheduler
from tests.support.store_reading import wait_for_state
from tests.support.waiting import wait_until

SECOND = timedelta(seconds=1)
HOURLY = {"trigger": "interval", "hours": 1}


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def store(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated store; plain APScheduler keeps its table beside batchd's."""
    opened = open_database(request.getfixturevalue(request.param))
    migrate(opened)
    yield opened
    opened.close()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """The file that stock jobs write to."""
    return tmp_path / "notes"


@contextlib.contextmanager
def planning(store: Database) -> Iterator[Scheduler]:
    """Run batchd's scheduler until the block ends."""
    clock = SystemClock()
    scheduler = Scheduler(store, SchedulerSettings(Retention(1000, timedelta(days=9), timedelta(days=1))), clock)
    scheduler.start()
    try:
        yield scheduler
    finally:
        assert scheduler.stop(clock.monotonic() + 10)


def read_lines(notes: Path) -> list[str]:
    """Return what stock jobs have noted."""
    return notes.read_text().splitlines() if notes.exists() else []


def planned(store: Database) -> int:
    """Return how many runs there are in the ledger."""
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(runs)).scalar_one()


def stock_next_run(store: Database) -> float | None:
    """Return when the stock job is to run next, in seconds since 1970; None when its row is gone."""
    with store.reading() as connection:
        return connection.execute(text("SELECT next_run_time FROM apscheduler_jobs")).scalar_one_or_none()


def ago(seconds: float) -> datetime:
    """Return a moment in the past, on a whole second."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=seconds)


def make_due(store: Database, moment: datetime) -> None:
    """Let every schedule be due since that moment."""
    with store.writing() as connection:
        connection.execute(update(schedules).values(next_run_at=moment))


def refuse_updates(connection: Connection, table: str) -> None:
    """Let the database refuse every UPDATE of the table, as a full disk or a failing server does."""
    if connection.dialect.name == "sqlite":
        head = f"CREATE TRIGGER no_{table} BEFORE UPDATE ON {table}"
        connection.exec_driver_sql(f"{head} BEGIN SELECT RAISE(ABORT, 'no space'); END")
        return
    body = "BEGIN RAISE EXCEPTION 'no space'; END"
    connection.exec_driver_sql(f"CREATE FUNCTION no_{table}() RETURNS trigger LANGUAGE plpgsql AS $no${body}$no$")
    connection.exec_driver_sql(f"CREATE TRIGGER no_{table} BEFORE UPDATE ON {table} EXECUTE FUNCTION no_{table}()")


def accept_updates(store: Database, table: str) -> None:
    """Let the database work again."""
    with store.writing() as connection:
        connection.exec_driver_sql(
            f"DROP TRIGGER no_{table}" + ("" if store.dialect.name == "sqlite" else f" ON {table}")
        )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_s1_an_error_of_the_store_ends_no_loop(store: Database, notes: Path) -> None:
    """Stock: the thread dies, `running` stays True, nothing fires again. Here: the pass is repeated."""
    with running(stock_scheduler(store.settings.url)) as stock:
        stock.add_job(note, "interval", seconds=1, args=[str(notes), "stock"])
        wait_until(lambda: read_lines(notes), seconds=20, what="a first stock run")
        with store.writing() as connection:
            refuse_updates(connection, "apscheduler_jobs")
        wait_until(lambda: not stock._thread.is_alive(), seconds=20, what="the end of the stock thread")
        accept_updates(store, "apscheduler_jobs")
        # What it has handed over before its end may still run.
        instances = stock._executors["default"]._instances
        wait_until(lambda: not any(instances.values()), seconds=20, what="the end of the last stock run")
        seen = len(read_lines(notes))
        time.sleep(1.5)
        assert (len(read_lines(notes)), stock.running) == (seen, True)

    reconcile(store, [job(schedule="every 1h")], datetime.now(UTC))
    with planning(store) as scheduler:
        with store.writing() as connection:
            connection.execute(update(schedules).values(next_run_at=ago(1)))
            refuse_updates(connection, "batchd_schedules")
        scheduler.wake()
        wait_until(lambda: scheduler._alarm._scheduler._failures, what="a pass that failed")
        assert scheduler.is_alive
        assert planned(store) == 0, "the run and the move of next_run_at are one transaction"
        accept_updates(store, "batchd_schedules")
        wait_until(lambda: planned(store) == 1, seconds=30, what="the fire that was due")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_s2_an_open_reader_of_the_sqlite_file_ends_no_loop(sqlite_url: str, notes: Path) -> None:
    """Stock: "database is locked" after its patience (5 s, here less), then S1. Here: readers disturb nobody."""
    stock_file = sqlite_url.replace("batchd.db", "stock.db")
    with running(stock_scheduler(stock_file, connect_args={"timeout": 0.2})) as stock:
        stock.add_job(note, "interval", seconds=1, args=[str(notes), "stock"])
        reader = open_plain(stock_file)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM apscheduler_jobs").fetchall()
        wait_until(lambda: not stock._thread.is_alive(), seconds=20, what="the end of the stock thread")
        assert stock.running
        reader.close()

    store = open_database(sqlite_url)
    migrate(store)
    reconcile(store, [job(schedule="every 1s", overlap=Overlap.ALLOW)], datetime.now(UTC))
    reader = open_plain(sqlite_url)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM batchd_schedules").fetchall()
    with planning(store) as scheduler:
        wait_until(lambda: planned(store) >= 3, what="runs beside the reader")
        assert scheduler._alarm._scheduler._failures == 0
    reader.close()
    store.close()


def open_plain(url: str) -> Any:
    """Open a SQLite file as a person with `sqlite3` does."""
    import sqlite3  # noqa: PLC0415 (this test alone)

    return sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)


def test_s3_a_shutdown_burns_no_fire(store: Database, notes: Path) -> None:
    """Stock: one more pass after the executors are gone moves what is due on, unrun. Here: it stays due and runs."""
    stock = stock_scheduler(store.settings.url)
    stock.start(paused=True)
    stock.add_job(note, **HOURLY, args=[str(notes), "stock"], next_run_time=ago(10))
    stock.shutdown()
    moved = stock_next_run(store)
    assert moved is not None
    assert moved > time.time()
    assert read_lines(notes) == []

    reconcile(store, [job(schedule="every 1h")], datetime.now(UTC))
    with planning(store) as scheduler:
        wait_until(lambda: scheduler.last_pass_at, what="a first pass")
        scheduler.pause()
        make_due(store, ago(1))
        scheduler.wake()
    assert planned(store) == 0
    with planning(store):
        wait_until(lambda: planned(store) == 1, what="the fire of the shutdown")


def test_s4_a_row_that_is_not_understood_is_kept(store: Database, tmp_path: Path, notes: Path) -> None:
    """Stock: any read deletes a row whose function is gone. Here: it stays, says why, and works again once mended."""
    (tmp_path / "gone_tomorrow.py").write_text("def work():\n    pass\n")
    sys.path.insert(0, str(tmp_path))
    stock = stock_scheduler(store.settings.url)
    stock.start(paused=True)
    try:
        stock.add_job("gone_tomorrow:work", **HOURLY)
        assert len(stock.get_jobs()) == 1
        (tmp_path / "gone_tomorrow.py").unlink()
        del sys.modules["gone_tomorrow"]
        assert stock.get_jobs() == []
        assert stock_next_run(store) is None, "deleted by a read"
    finally:
        sys.path.remove(str(tmp_path))
        stock.shutdown()

    definition = job(schedule="every 1h")
    reconcile(store, [definition], datetime.now(UTC))
    with store.writing() as connection:
        connection.execute(update(schedules).values(schedule="every blue moon", next_run_at=ago(1)))
    with planning(store):
        wait_until(lambda: schedule_row(store).error, what="the reason in the row")
    assert "blue moon" in schedule_row(store).error
    reconcile(store, [definition], datetime.now(UTC))
    row = schedule_row(store)
    assert (row.error, row.schedule) == (None, "every 1h")
    assert row.next_run_at > datetime.now(UTC)


def schedule_row(store: Database) -> Any:
    """Return the only schedule."""
    with store.reading() as connection:
        return connection.execute(select(schedules)).one()


def test_s5_a_restart_keeps_a_missed_fire(store: Database, notes: Path) -> None:
    """Stock: adding the jobs at start replaces rows and drops what they missed. Here: an unchanged row is untouched."""
    missed = ago(10)
    stock_job = {**HOURLY, "args": [str(notes), "stock"], "id": "hourly"}
    first, second = (stock_scheduler(store.settings.url) for _ in range(2))
    with running(first, paused=True):  # as a killed one that does not get to do anything more
        first.add_job(note, **stock_job, next_run_time=missed)
        second.add_job(note, **stock_job, replace_existing=True)
        with running(second):
            time.sleep(0.5)
        assert read_lines(notes) == []
        assert (stock_next_run(store) or 0) > time.time()

    definitions = [job(schedule="every 1h")]
    reconcile(store, definitions, datetime.now(UTC))
    make_due(store, missed)
    reconcile(store, definitions, datetime.now(UTC))
    with planning(store):
        wait_until(lambda: planned(store) == 1, what="the missed fire")
    with store.reading() as connection:
        assert connection.execute(select(runs.c.scheduled_for)).scalar_one() == missed


def test_s6_two_on_one_store_run_a_fire_once(store: Database, notes: Path) -> None:
    """Stock: both run it. Here: on PostgreSQL they share the work, on SQLite the second one is refused."""
    pair = [stock_scheduler(store.settings.url) for _ in range(2)]
    with running(pair[0], paused=True), running(pair[1], paused=True), store.engine.connect() as slow:
        pair[0].add_job(note, **HOURLY, args=[str(notes), "stock"], next_run_time=ago(1))
        # Reading goes on, writing waits: both take the fire before either has moved it on.
        slow.execution_options(sqlite_begin="IMMEDIATE")
        slow.execute(text("UPDATE apscheduler_jobs SET next_run_time = next_run_time"))
        for scheduler in pair:
            scheduler.resume()
        wait_until(lambda: len(read_lines(notes)) == 2, what="the same fire twice")
        slow.rollback()

    names = [f"job-{number}" for number in range(20)]
    reconcile(store, [job(name, schedule="every 1s", overlap=Overlap.ALLOW) for name in names], datetime.now(UTC))
    if store.dialect.name == "sqlite":
        with hold_sqlite_lock(store), pytest.raises(AlreadyRunning), hold_sqlite_lock(store):
            pass
        return
    with planning(store), planning(store):
        wait_until(lambda: planned(store) >= 60, what="three fires of twenty schedules")
    with store.reading() as connection:
        fires = connection.execute(select(runs.c.schedule_id, runs.c.scheduled_for, runs.c.fire_count)).all()
    for name in names:
        mine = sorted(fire.scheduled_for for fire in fires if fire.schedule_id == name)
        assert mine == [mine[0] + n * SECOND for n in range(len(mine))], "each second once, none left out"
    assert {fire.fire_count for fire in fires} == {1}


def test_s7_a_run_at_a_kill_is_not_lost(store: Database, notes: Path, tmp_path: Path) -> None:
    """Stock: the row of a one-off is deleted before it runs, so a kill leaves no trace. Here: it is run again."""
    url = store.settings.url
    stock = stock_scheduler(url)
    stock.start(paused=True)
    stock.add_job(note, "date", run_date=ago(-1), args=[str(notes), "began", 60], id="once")
    with store.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM apscheduler_jobs")).scalar_one() == 1
    command = [sys.executable, "-m", "tests.support.stock", url]
    with RunningProcess(command, folder=PROJECT) as process:
        wait_until(lambda: read_lines(notes), seconds=20, what="the stock run's begin")
        wait_until(lambda: stock_next_run(store) is None, what="the deletion of its row")
        process.kill()
    with running(stock_scheduler(url)):
        time.sleep(0.5)
    assert read_lines(notes) == ["began"]

    config = write_config(
        tmp_path, {"store": {"url": url}, "jobs": {"nap": {"kind": "sleep", "time": "1s", "schedule": "@yearly"}}}
    )
    with Daemon(config) as daemon:
        daemon.ready()
        run_id = control.trigger(store, "nap", {}, created_by=CreatedBy.CLI)
        wait_for_state(store, run_id, RunState.RUNNING)
        daemon.kill()
    with Daemon(config) as daemon:
        finished = wait_for_state(store, run_id, RunState.SUCCEEDED)
        daemon.stop()
    assert [attempt.outcome for attempt in finished.attempts] == ["lost", "succeeded"]
