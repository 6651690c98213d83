"""The connection to the store breaks around a commit: before it nothing has happened, after it everything has.

The client cannot tell the two apart. Nothing may be lost, done twice, or left lying because of that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.job import Overlap
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import DatabaseUnavailable
from batchd.scheduler.scheduler import Scheduler, SchedulerSettings
from batchd.store import control
from batchd.store.history import Retention
from batchd.store.job_schema import checkpoints
from batchd.store.migrate import migrate
from batchd.store.schedules import reconcile
from batchd.store.schema import outbox, runs
from tests.e2e.ledger import fire_problems, read_fires
from tests.support.databases import open_database
from tests.support.definitions import job
from tests.support.engine_room import engine_room
from tests.support.faulty_wire import Fault, FaultyWire
from tests.support.store_reading import runs_of, wait_for_state
from tests.support.store_rows import add_schedule
from tests.support.waiting import wait_until

FINAL = tuple(state for state in RunState if state.is_final)

pytestmark = pytest.mark.parametrize("fault", Fault)


@pytest.fixture
def direct(postgres_url: str) -> Iterator[Database]:
    """The store over a sound wire, migrated."""
    store = open_database(postgres_url, name="app")
    migrate(store)
    yield store
    store.close()


@pytest.fixture
def wire(postgres_url: str, direct: Database) -> Iterator[FaultyWire]:
    """A wire that the test may break."""
    with FaultyWire(postgres_url) as wire:
        yield wire


@pytest.fixture
def store(wire: FaultyWire) -> Iterator[Database]:
    """The store over that wire."""
    store = open_database(wire.url)
    yield store
    store.close()


def states_of(direct: Database) -> list[str]:
    """Return the states of all runs."""
    with direct.reading() as connection:
        return list(connection.execute(select(runs.c.state).order_by(runs.c.id)).scalars())


def test_planning_neither_loses_nor_doubles_a_fire(
    direct: Database, store: Database, wire: FaultyWire, fault: Fault
) -> None:
    """The next pass finds the schedule either still due or moved on with its run."""
    reconcile(direct, [job(schedule="every 1s", overlap=Overlap.ALLOW)], datetime.now(UTC))
    clock = SystemClock()
    scheduler = Scheduler(store, SchedulerSettings(Retention(9, timedelta(1), timedelta(1))), clock)
    scheduler.start()
    try:
        wait_until(lambda: len(states_of(direct)) >= 1, seconds=30, what="a first fire")
        wire.break_next_commit(fault, after="INSERT INTO batchd_runs")
        wait_until(lambda: wire.faults, seconds=30, what="the fault")
        planned = len(states_of(direct))
        wait_until(lambda: len(states_of(direct)) >= planned + 2, seconds=40, what="further fires")
    finally:
        assert scheduler.stop(clock.monotonic() + 10)
    fires = read_fires(direct)
    assert fire_problems(fires, every=timedelta(seconds=1), until=fires[0].first - timedelta(seconds=1)) == []


@pytest.mark.parametrize("is_at_once", [True, False], ids=["at-once", "in-steps"])
def test_a_claim_is_not_left_lying(
    direct: Database, store: Database, wire: FaultyWire, fault: Fault, *, is_at_once: bool
) -> None:
    """A claim that the daemon does not know of is found at once, not when its lease ends; no attempt is used up."""
    store.dialect.changes_in_ctes = is_at_once
    with engine_room(store, {"work": lambda _context: {}}, lease_seconds=60):
        if is_at_once:
            wire.break_next_claim(fault)
        else:
            wire.break_next_commit(fault, after="UPDATE batchd_runs SET .*lease_until")
        run_id = trigger(direct)
        began = time.monotonic()
        found = wait_for_state(direct, run_id, *FINAL, seconds=40)
        assert time.monotonic() - began < 30  # the lease would last for 60 s
    assert wire.faults == 1
    assert (found.run.state, found.run.attempt) == (RunState.SUCCEEDED, 1)
    lost = [] if fault is Fault.BEFORE else ["released"]
    assert [attempt.outcome for attempt in found.attempts] == [*lost, "succeeded"]


def test_an_ending_counts_once(direct: Database, store: Database, wire: FaultyWire, fault: Fault) -> None:
    """The run succeeds once, one notice tells of it, and its checkpoint is swept up."""

    def work(context: Any) -> dict[str, Any]:
        database = context.database("app")
        context.checkpoint(database)
        with context.writing(database) as connection:
            context.save_checkpoint(connection, database, {"at": 1})
        wire.break_next_commit(fault, after="UPDATE batchd_attempts SET")
        return {"done": 1}

    with engine_room(store, {"work": work}, databases={"app": direct}):
        run_id = trigger(direct)
        found = wait_for_state(direct, run_id, *FINAL, seconds=40)
        wait_until(lambda: count(direct, checkpoints) == 0, seconds=40, what="the checkpoint is gone")
    assert wire.faults == 1
    assert (found.run.state, found.run.result, len(found.attempts)) == (RunState.SUCCEEDED, {"done": 1}, 1)
    with direct.reading() as connection:
        told = connection.execute(select(outbox.c.event).where(outbox.c.run_id == run_id)).scalars().all()
    assert told == ["run.finished"]


def test_an_attempt_that_fails_is_retried_once(
    direct: Database, store: Database, wire: FaultyWire, fault: Fault
) -> None:
    """Two attempts are two attempts, however often the daemon has to say that the first one failed."""
    tries: list[int] = []

    def work(context: Any) -> dict[str, Any]:
        tries.append(context.attempt)
        if len(tries) == 1:
            wire.break_next_commit(fault, after="UPDATE batchd_attempts SET")
            raise ValueError("no")
        return {}

    with engine_room(store, {"work": work}):
        found = wait_for_state(direct, trigger(direct), *FINAL, seconds=40)
    assert (wire.faults, tries, found.run.attempt) == (1, [1, 2], 2)
    assert [attempt.outcome for attempt in found.attempts] == ["failed", "succeeded"]


def test_a_trigger_says_that_it_does_not_know(
    direct: Database, store: Database, wire: FaultyWire, fault: Fault
) -> None:
    """Whoever asked gets an error and looks; nothing tries again by itself and queues a second run."""
    add_schedule(direct, "nightly")
    wire.break_next_commit(fault, after="INSERT INTO batchd_runs")
    with pytest.raises(DatabaseUnavailable):
        control.trigger(store, "nightly", {}, created_by=CreatedBy.CLI)
    assert len(runs_of(direct, "nightly")) == (1 if fault is Fault.AFTER else 0)


def trigger(direct: Database) -> int:
    """Queue a run of `work` and wake the engine."""
    add_schedule(direct, "job", kind="work", params={}, max_attempts=3)
    return control.trigger(direct, "job", {}, created_by=CreatedBy.CLI)


def count(direct: Database, table: Any) -> int:
    """Return how many rows the table has."""
    with direct.reading() as connection:
        return len(connection.execute(select(table)).all())
