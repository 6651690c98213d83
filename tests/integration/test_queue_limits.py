"""Limits over all daemons: each claim here is one of daemon "a" or "b", and what one has, the other counts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import update

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome, Decision
from batchd.domain.job import Overlap
from batchd.domain.queue import QueueOrder, QueueRules, Rate
from batchd.domain.run import CreatedBy, RunState
from batchd.engine.running import InHand
from batchd.engine.settings import EngineSettings
from batchd.engine.worker import Dispatcher, Waiting
from batchd.service.room_settings import LEASE, REAP_EVERY
from batchd.store import control, leases, queue_control
from batchd.store.claimed import Claim, ClaimRequest
from batchd.store.claims import claim, next_available_at
from batchd.store.enqueue import NewRun, enqueue
from batchd.store.finish import Ending, finish
from batchd.store.migrate import migrate
from batchd.store.schema import rate_starts, runs
from tests.support.store_rows import add_run, add_schedule, run_row
from tests.support.waiting import wait_until

HOUR = timedelta(hours=1)


@pytest.fixture
def store(database: Database) -> Database:
    """A migrated store with one job."""
    migrate(database)
    add_schedule(database)
    return database


def take(
    store: Database, limit: int = 10, worker: str = "a", rules: Mapping[str, QueueRules] | None = None, **more: Any
) -> tuple[Claim, ...]:
    """Claim as a daemon with these rules does."""
    return claim(store, ClaimRequest(worker, limit, timedelta(seconds=30), {}, rules or {}, **more))


def end(store: Database, claimed: Claim) -> None:
    """Record that the run succeeded."""
    finish(store, [Ending(claimed, AttemptOutcome.SUCCEEDED, Decision(RunState.SUCCEEDED, None, None), None, None)])


def ids(claimed: tuple[Claim, ...]) -> list[int]:
    """The runs of the claims."""
    return [each.run_id for each in claimed]


def test_a_paused_queue_waits_and_the_others_go_on(store: Database) -> None:
    """The pause is in the store, so that it holds for every daemon and over restarts."""
    low, other = add_run(store, queue="low"), add_run(store, queue="other")
    assert queue_control.pause(store, "low")
    assert not queue_control.pause(store, "low")
    assert ids(take(store)) == [other]
    assert take(store, worker="b") == ()
    assert queue_control.resume(store, "low")
    assert not queue_control.resume(store, "low")
    assert ids(take(store, worker="b")) == [low]


def test_all_daemons_share_a_queues_places(store: Database) -> None:
    """A place is free again when its run ends, and when its daemon is dead and the reaper took the run back."""
    rules = {"low": QueueRules(max_running=3)}
    for _ in range(9):
        add_run(store, queue="low")
    first = take(store, 2, "a", rules)
    second = take(store, 9, "b", rules)
    assert (len(first), len(second)) == (2, 1)
    assert take(store, 9, "a", rules) == ()
    end(store, first[0])
    assert len(take(store, 9, "b", rules)) == 1
    with store.writing() as connection:
        connection.execute(
            update(runs).where(runs.c.id == first[1].run_id).values(lease_until=store.dialect.now_plus(-60))
        )
    assert leases.reap_expired(store, mine={}) == (first[1].run_id,)
    assert len(take(store, 9, "b", rules)) == 1


def test_daemons_that_claim_at_once_keep_the_limit(store: Database) -> None:
    """The decision is made under a lock: four threads for four daemons never have more than the limit between them."""
    rules = {"low": QueueRules(max_running=5, rate=Rate(7, HOUR))}
    enqueue(store, [NewRun(kind="noop", queue="low") for _ in range(60)], created_by=CreatedBy.CLI)
    claimed: list[Claim] = []
    ready = threading.Barrier(4)

    def work(worker: str) -> None:
        ready.wait()
        for _ in range(6):
            claimed.extend(take(store, 2, worker, rules))

    threads = [threading.Thread(target=work, args=(f"d{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(ids(tuple(claimed)))) == 5
    for each in claimed:
        end(store, each)
    assert len(take(store, 9, "a", rules)) == 2  # of the rate
    assert take(store, 9, "b", rules) == ()


def test_a_rate_holds_over_daemons_and_restarts(store: Database) -> None:
    """Its window is kept in the store; runs that end leave it full, only time empties it."""
    rules = {"mail": QueueRules(rate=Rate(3, HOUR))}
    for _ in range(5):
        add_run(store, queue="mail")
    for each in take(store, 2, "a", rules):
        end(store, each)
    (third,) = take(store, 9, "b", rules)
    end(store, third)
    assert take(store, 9, "a", rules) == ()
    assert next_available_at(store) == timedelta(0)
    with store.writing() as connection:
        connection.execute(update(rate_starts).values(counts_until=store.dialect.now_plus(-1)))
    assert len(take(store, 9, "a", rules)) == 2


def test_a_mutex_holds_over_jobs_and_queues(store: Database) -> None:
    """One at a time; the next is the best that waits, once the first has ended."""
    old = add_run(store, queue="one", mutex="warehouse", priority=0)
    best = add_run(store, queue="two", mutex="warehouse", priority=9)
    free = add_run(store, queue="two", priority=0)
    got = take(store)
    assert ids(got) == [best, free]
    assert run_row(store, old)["waits_for"] == "mutex:warehouse"
    assert take(store, worker="b") == ()
    assert next_available_at(store) == timedelta(0)
    end(store, got[0])
    assert ids(take(store, worker="b")) == [old]
    assert run_row(store, old)["waits_for"] is None


def test_a_key_that_is_full_holds_up_no_other(store: Database) -> None:
    """A customer with very many runs has its places; the customer behind it has its own."""
    rules = {"sync": QueueRules(max_running_per_key=2)}
    flood = [NewRun(kind="noop", queue="sync", limit_key="big") for _ in range(2500)]
    flood_ids = enqueue(store, flood, created_by=CreatedBy.CLI)
    (small,) = enqueue(store, [NewRun(kind="noop", queue="sync", limit_key="small")], created_by=CreatedBy.CLI)
    got = take(store, 1, "a", rules) + take(store, 9, "b", rules) + take(store, 9, "a", rules)
    assert sorted(ids(got)) == [*flood_ids[:2], small]
    end(store, got[0])
    assert ids(take(store, 9, "b", rules)) == [flood_ids[2]]


def test_a_rate_of_a_key_is_for_each_key(store: Database) -> None:
    """Two of each customer in the window, whoever claims."""
    rules = {"mail": QueueRules(rate_per_key=Rate(2, HOUR))}
    wanted = [NewRun(kind="noop", queue="mail", limit_key=key) for key in ("x", "x", "x", "y", "x", "y", "y")]
    given = enqueue(store, wanted, created_by=CreatedBy.CLI)
    got = take(store, 3, "a", rules) + take(store, 9, "b", rules) + take(store, 9, "a", rules)
    assert sorted(ids(got)) == [given[0], given[1], given[3], given[5]]


def test_very_many_keys_are_asked_for_together(store: Database) -> None:
    """Each with its own places and its own rate, as if it were the only one."""
    rules = {"mail": QueueRules(max_running_per_key=1, rate_per_key=Rate(2, HOUR))}
    keys = [f"k{number}" for number in range(8)]
    wanted = [NewRun(kind="noop", queue="mail", limit_key=key) for key in keys for _ in range(4)]
    given = enqueue(store, wanted, created_by=CreatedBy.CLI)
    enqueue(store, [NewRun(kind="noop", mutex="m") for _ in range(2)], created_by=CreatedBy.CLI)
    first = take(store, 50, "a", rules)
    assert sorted(ids(first)) == sorted([*given[::4], first[-1].run_id])
    assert take(store, 50, "b", rules) == ()
    for each in first:
        end(store, each)
    second = take(store, 50, "b", rules)
    assert len(second) == 9
    for each in second:
        end(store, each)
    assert take(store, 50, "a", rules) == ()  # both starts of each key are used up


def test_a_limit_that_left_the_config_holds_nobody(store: Database) -> None:
    """What waited for it comes back with the next claim."""
    rules = {"sync": QueueRules(max_running_per_key=1)}
    enqueue(store, [NewRun(kind="noop", queue="sync", limit_key="k") for _ in range(3)], created_by=CreatedBy.CLI)
    assert len(take(store, 9, "a", rules)) == 1
    assert len(take(store, 9, "b", {})) == 2


def test_a_parked_run_can_be_cancelled_and_retried(store: Database) -> None:
    """What it waited for then does not hold it later."""
    holder, waiter = (add_run(store, mutex="m", priority=priority) for priority in (5, 4))
    got = take(store)
    assert ids(got) == [holder]
    control.request_cancel(store, waiter)
    end(store, got[0])
    control.retry(store, waiter, created_by=CreatedBy.CLI)
    assert ids(take(store)) == [waiter]


def test_a_jobs_runs_have_its_mutex_and_key_however_they_are_queued(store: Database) -> None:
    """By a trigger and by another run; the key is made of the run's own parameters."""
    add_schedule(store, "sync", mutex="m", limit_key="{table}", overlap=Overlap.ALLOW.value)
    triggered = control.trigger(store, "sync", {"table": "orders"}, created_by=CreatedBy.CLI)
    (queued,) = enqueue(store, [NewRun(job="sync")], created_by=CreatedBy.JOB)
    assert [(run_row(store, each)["mutex"], run_row(store, each)["limit_key"]) for each in (triggered, queued)] == [
        ("m", "orders"),
        ("m", "logs"),
    ]


@pytest.mark.parametrize("order", QueueOrder)
def test_a_flooded_low_queue_does_not_starve_critical(store: Database, order: QueueOrder) -> None:
    """Nine tenths (weighted) or all (strict) of the places are critical's, though the low runs have waited longer."""
    rules = {"critical": QueueRules(priority=5, weight=9), "low": QueueRules(weight=1)}
    enqueue(store, [NewRun(kind="noop", queue="low", priority=9) for _ in range(500)], created_by=CreatedBy.CLI)
    enqueue(store, [NewRun(kind="noop", queue="critical") for _ in range(400)], created_by=CreatedBy.CLI)
    random, counts = Random(4), Counter[str]()
    for _ in range(30):
        counts.update(each.queue for each in take(store, 10, "a", rules, order=order, random=random))
    assert counts.total() == 300
    if order is QueueOrder.STRICT:
        assert counts["critical"] == 300
    else:
        assert 250 <= counts["critical"] <= 290  # 270 expected; three deviations are 16


def test_a_full_queue_does_not_make_others_late(store: Database) -> None:
    """While runs wait for its limit, the daemon looks again when a run of another queue falls due, and no later."""
    clock = SystemClock()
    waiting = Waiting(clock)
    settings = EngineSettings(1, {"full": 0}, LEASE, REAP_EVERY, timedelta(seconds=1))
    dispatcher = Dispatcher(store, settings, "me", waiting, InHand(clock), clock)
    thread = threading.Thread(target=waiting.take)
    thread.start()
    try:
        wait_until(lambda: waiting.idle() == 1, what="a free thread")
        add_run(store, job=None, queue="full")
        assert dispatcher.run_once(clock.now()) == timedelta(seconds=1)
        add_run(store, job=None, queue="free", available_at=store.dialect.now_plus(0.5))
        assert dispatcher.run_once(clock.now()) <= timedelta(seconds=0.5)
    finally:
        waiting.close()
        thread.join(10)
