"""A store that neither answers nor breaks, one without room, and workers that are never heard of again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.engine.lease import LeaseKeeper
from batchd.engine.running import InHand, RunningAttempt
from batchd.engine.settings import EngineSettings
from batchd.engine.worker import Dispatcher, Waiting
from batchd.errors import DatabaseUnavailable, RunInterrupted, StopReason
from batchd.jobs.contract import JobContext
from batchd.service.room_settings import LEASE, REAP_EVERY
from batchd.store.claimed import ClaimRequest
from batchd.store.claims import claim
from batchd.store.migrate import migrate
from tests.support.databases import open_database
from tests.support.engine_room import engine_room
from tests.support.faulty_wire import Fault, FaultyWire
from tests.support.store_reading import wait_for_state
from tests.support.store_rows import add_attempt, add_run, run_row
from tests.support.waiting import wait_until

FINAL = tuple(state for state in RunState if state.is_final)


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


def test_an_attempt_stops_before_its_lease_ends_although_the_store_hangs(direct: Database, wire: FaultyWire) -> None:
    """A half-open connection holds the lease keeper's thread; the attempt is stopped in time all the same."""
    store = open_database(wire.url)
    at_work, stopped = threading.Event(), threading.Event()
    reasons: list[StopReason] = []

    def work(context: JobContext) -> Any:
        at_work.set()
        try:
            context.wait(timedelta(seconds=60))
        except RunInterrupted as interrupted:
            reasons.append(interrupted.reason)
            stopped.set()
            raise

    with engine_room(store, {"work": work}, lease_seconds=6, stops_cleanly=False):
        run_id = add_run(direct, kind="work", job=None)
        assert at_work.wait(20)
        wire.fall_silent()
        lease_until = run_row(direct, run_id)["lease_until"]
        assert stopped.wait(10)
        with direct.reading() as connection:
            assert connection.execute(select(direct.dialect.now())).scalar_one() < lease_until
        assert reasons == [StopReason.LEASE_LOST]
        wire.speak_again()
        wait_until(lambda: run_row(direct, run_id)["fence"] == 2, seconds=20, what="it goes on")
    store.close()


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_claims_that_could_not_be_given_back_are_given_back_later(
    direct: Database, wire: FaultyWire, fault: Fault
) -> None:
    """A claim that no thread took up is released, after an outage as well; forgotten, it would be renewed for ever.

    Nor is it told of as lost when leases are renewed before it is known to be given back.
    """
    store = open_database(wire.url)
    clock = SystemClock()
    waiting, in_hand = Waiting(clock), InHand(clock)
    settings = EngineSettings(1, {}, LEASE, REAP_EVERY, timedelta(seconds=1))
    dispatcher = Dispatcher(store, settings, "me", waiting, in_hand, clock)
    run_id = add_run(direct, kind="work", job=None)
    (claimed,) = claim(direct, ClaimRequest("me", 1, LEASE.length, {}))
    old = RunningAttempt(claimed, trusted_until=clock.monotonic() + 99, claimed_at=clock.monotonic() - 99)
    in_hand.add([old])
    waiting.put([old])
    wire.break_next_commit(fault, after="UPDATE batchd_runs SET")
    with pytest.raises(DatabaseUnavailable):
        dispatcher.run_once(clock.now())
    assert in_hand.all() == (old,)
    keeper = LeaseKeeper(direct, settings, "me", in_hand, clock)
    keeper.beat_now()
    keeper.run_once(clock.now())
    assert old.stop_reason is None
    dispatcher.run_once(clock.now())
    assert in_hand.all() == ()
    run = run_row(direct, run_id)
    assert (run["state"], run["attempt"], run["fence"]) == ("queued", 0, 1)
    store.close()


def test_a_silent_workers_run_goes_on_although_a_jobs_database_hangs(direct: Database, wire: FaultyWire) -> None:
    """A run whose lease ended is taken back, whatever else the daemon has to do; its loss is not an attempt."""
    app = open_database(wire.url, name="app")

    def leave_checkpoint(context: JobContext) -> dict[str, Any]:
        database = context.database("app")
        context.checkpoint(database)
        wire.fall_silent()
        return {}

    with engine_room(
        direct, {"leave": leave_checkpoint, "work": lambda _context: {}}, databases={"app": app}, lease_seconds=3
    ):
        wait_for_state(direct, add_run(direct, kind="leave", job=None), RunState.SUCCEEDED)
        ghost = add_run(
            direct,
            "running",
            job=None,
            kind="work",
            worker="ghost",
            attempt=1,
            fence=1,
            lease_until=direct.dialect.now_plus(1),
        )
        add_attempt(direct, ghost, 1, worker="ghost")
        found = wait_for_state(direct, ghost, *FINAL, seconds=20)
        wire.speak_again()
    assert (found.run.state, found.run.attempt) == (RunState.SUCCEEDED, 1)
    assert [attempt.outcome for attempt in found.attempts] == ["lost", "succeeded"]
    app.close()


def test_a_dead_workers_run_goes_on_within_a_minute() -> None:
    """By the daemon's own terms: a whole lease from the last heartbeat on, and one look of the reaper."""
    assert LEASE.length + REAP_EVERY < timedelta(seconds=60)
    assert LEASE.heartbeat * 3 <= LEASE.length
    asked_at = 100.0
    assert asked_at < LEASE.trusted_until(asked_at) < asked_at + LEASE.length.total_seconds()


def test_an_ending_waits_for_room_in_the_store(direct: Database) -> None:
    """A disk that is full for a while is an outage: what ended well is recorded as that once there is room."""
    with direct.writing() as connection:
        body = "BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END"
        connection.exec_driver_sql(f"CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $f${body}$f$")
        connection.exec_driver_sql(
            "CREATE TRIGGER full_disk BEFORE UPDATE ON batchd_runs FOR EACH ROW "
            "WHEN (NEW.state = 'succeeded') EXECUTE FUNCTION full_disk()"
        )
    with engine_room(direct, {"work": lambda _context: {"done": 1}}) as engine:
        run_id = add_run(direct, kind="work", job=None)
        wait_until(lambda: engine._finisher._delay.count, seconds=20, what="an ending that has to wait")
        with direct.writing() as connection:
            connection.exec_driver_sql("DROP TRIGGER full_disk ON batchd_runs")
        found = wait_for_state(direct, run_id, *FINAL)
    assert (found.run.state, found.run.result) == (RunState.SUCCEEDED, {"done": 1})


def test_durations_go_on_while_the_machine_sleeps() -> None:
    """A lease does not wait for a laptop: CLOCK_MONOTONIC stops in suspend, so it is not the clock of leases."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = SystemClock().monotonic()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)
