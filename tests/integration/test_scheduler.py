"""The scheduler's thread plans on time, survives its store, and stops without losing a fire."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, func, select, text, update

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.job import Overlap
from batchd.scheduler.scheduler import Scheduler, SchedulerSettings
from batchd.store.history import Retention
from batchd.store.migrate import migrate
from batchd.store.schedules import reconcile
from batchd.store.schema import runs, schedules
from tests.support.definitions import job
from tests.support.waiting import wait_until

SETTINGS = SchedulerSettings(Retention(1000, timedelta(days=90), timedelta(days=1)))


@pytest.fixture
def store(database: Database) -> Database:
    """A migrated store."""
    migrate(database)
    return database


@contextlib.contextmanager
def running(store: Database) -> Iterator[Scheduler]:
    """Yield a scheduler that runs until the block ends."""
    scheduler = Scheduler(store, SETTINGS, SystemClock())
    scheduler.start()
    try:
        yield scheduler
    finally:
        assert scheduler.stop(SystemClock().monotonic() + 10)


def count(store: Database) -> int:
    """Return the number of runs."""
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(runs)).scalar_one()


def make_due(store: Database) -> None:
    """Let every schedule be due since a second ago."""
    with store.writing() as connection:
        past = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
        connection.execute(update(schedules).values(next_run_at=past))


def test_schedules_fire_on_time(store: Database) -> None:
    """A one-second schedule gets a run a second, and none of them late."""
    reconcile(store, [job(schedule="every 1s", overlap=Overlap.ALLOW)], datetime.now(UTC))
    with running(store) as scheduler:
        wait_until(lambda: count(store) >= 3, what="three runs")
        assert scheduler.is_alive
        assert scheduler.last_pass_at is not None
    with store.reading() as connection:
        rows = connection.execute(select(runs.c.scheduled_for, runs.c.created_at, runs.c.state)).all()
    assert {row.state for row in rows} == {"queued"}
    assert max(row.created_at - row.scheduled_for for row in rows) < timedelta(seconds=1)


def test_a_store_that_fails_does_not_end_the_loop(store: Database) -> None:
    """The pass is tried again, and what was due meanwhile is planned."""
    reconcile(store, [job(schedule="every 1h")], datetime.now(UTC))
    with running(store) as scheduler:
        wait_until(lambda: scheduler.last_pass_at, what="a first pass")
        with store.writing() as connection:
            connection.execute(text("ALTER TABLE batchd_runs RENAME TO away"))
        make_due(store)
        seen = scheduler.last_pass_at
        scheduler.wake()
        wait_until(lambda: scheduler._alarm._scheduler._failures, what="a pass that failed")
        assert scheduler.is_alive
        assert scheduler.last_pass_at == seen
        with store.writing() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO batchd_runs"))
        wait_until(lambda: count(store) == 1, seconds=100, what="the run that was due")


def test_a_paused_scheduler_leaves_what_is_due(store: Database) -> None:
    """Neither a wake nor the stop plans or moves it."""
    reconcile(store, [job(schedule="every 1h")], datetime.now(UTC))
    with running(store) as scheduler:
        wait_until(lambda: scheduler.last_pass_at, what="a first pass")
        scheduler.pause()
        make_due(store)
        scheduler.wake()
    assert count(store) == 0
    with store.reading() as connection:
        assert connection.execute(select(schedules.c.next_run_at)).scalar_one() < datetime.now(UTC)


def test_ten_thousand_due_schedules_are_planned_in_batches(store: Database) -> None:
    """Neither reconcile nor the planner goes row by row: a few statements do for a thousand."""
    writes = 0

    def noted(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal writes
        writes += statement.startswith(("INSERT", "UPDATE"))

    event.listen(store.engine, "before_cursor_execute", noted)
    reconcile(store, [job(f"job-{n}", schedule="every 1h") for n in range(10_000)], datetime.now(UTC))
    make_due(store)
    with running(store):
        wait_until(lambda: count(store) == 10_000, seconds=100, what="10,000 runs")
    assert 0 < writes < 300
