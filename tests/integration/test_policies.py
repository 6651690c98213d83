"""Where two policies meet, and where two writers do: each fire still ends as exactly one row."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update

from batchd.db.engine import Database
from batchd.domain.job import CatchUp, CatchUpPolicy, Overlap
from batchd.domain.run import CreatedBy
from batchd.scheduler.planner import Planner
from batchd.store import control, planning
from batchd.store.claimed import ClaimRequest
from batchd.store.claims import claim
from batchd.store.leases import reap_expired
from batchd.store.migrate import migrate
from batchd.store.schedules import reconcile
from batchd.store.schema import runs, schedules
from tests.support.definitions import job
from tests.support.store_rows import add_run
from tests.support.waiting import wait_until

START = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
FIRST = datetime(2026, 5, 1, 12, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture
def store(database: Database) -> Database:
    """A migrated store."""
    migrate(database)
    return database


def plan(store: Database, now: datetime) -> planning.Planned:
    """Plan what is due at the moment."""
    return planning.add_due(store, planning.due_schedule_ids(store, now), now)


def ledger(store: Database) -> list[Any]:
    """Return the fires in order."""
    with store.reading() as connection:
        found = select(runs).where(runs.c.scheduled_for.is_not(None)).order_by(runs.c.scheduled_for)
        return list(connection.execute(found).all())


def states(store: Database) -> list[str]:
    """Return the states of the fires in order."""
    return [run.state for run in ledger(store)]


def next_run_at(store: Database) -> datetime | None:
    """Return when the only schedule is due."""
    with store.reading() as connection:
        return connection.execute(select(schedules.c.next_run_at)).scalar_one()


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (Overlap.SKIP, ["skipped", "skipped", "skipped"]),
        (Overlap.QUEUE, ["queued", "skipped", "skipped"]),
        (Overlap.ALLOW, ["queued", "queued", "queued"]),
    ],
)
def test_a_run_that_waits_for_its_retry_is_unfinished(store: Database, overlap: Overlap, expected: list[str]) -> None:
    """Its next attempt is to come: `skip` skips, `queue` lets one wait behind it, `allow` does not care."""
    reconcile(store, [job(overlap=overlap)], START)
    add_run(store, "queued", attempt=1, available_at=store.dialect.now_plus(3600))
    for minute in range(3):
        plan(store, FIRST + minute * MINUTE)
    assert states(store) == expected


def test_two_runs_of_a_job_are_never_claimed_together(store: Database) -> None:
    """One waits behind the other, however many threads are free; `allow` lets both."""
    reconcile(store, [job(overlap=Overlap.QUEUE), job("free", overlap=Overlap.ALLOW)], START)
    for minute in range(2):
        plan(store, FIRST + minute * MINUTE)
    claimed = claim(store, ClaimRequest("me", 10, MINUTE, {})) + claim(store, ClaimRequest("me", 10, MINUTE, {}))
    assert sorted(str(each.job) for each in claimed) == ["free", "free", "nightly"]


def test_a_fire_that_jitter_delays_is_unfinished_and_keeps_its_time(store: Database) -> None:
    """Its fire time stays nominal, its start waits, and the start deadline counts from the delayed start."""
    reconcile(store, [job(jitter=10 * MINUTE, start_deadline=MINUTE)], START)
    plan(store, FIRST)
    plan(store, FIRST + MINUTE)
    first, second = ledger(store)
    assert (first.scheduled_for, first.state, second.state) == (FIRST, "queued", "skipped")
    delay = first.start_deadline_at - FIRST - MINUTE
    assert timedelta(0) < delay < 10 * MINUTE
    assert abs(first.available_at - first.created_at - delay) < timedelta(seconds=1)
    assert claim(store, ClaimRequest("me", 10, MINUTE, {})) == ()


@pytest.mark.parametrize(
    ("policy", "deadline", "expected", "missed"),
    [
        (CatchUpPolicy(CatchUp.ALL, 3, DAY), None, ["missed", "queued", "queued", "queued"], 8),
        (CatchUpPolicy(CatchUp.ALL, 100, 4 * MINUTE), None, ["missed", *["queued"] * 5], 6),
        (CatchUpPolicy(CatchUp.ALL, 100, DAY), 2 * MINUTE, ["missed", *["queued"] * 3], 8),
        (CatchUpPolicy(CatchUp.ONCE, 100, DAY), None, ["missed", "queued"], 10),
        (CatchUpPolicy(CatchUp.SKIP, 100, DAY), None, ["missed", "queued"], 10),
    ],
)
def test_what_passed_unserved_is_in_the_account(
    store: Database, policy: CatchUpPolicy, deadline: timedelta | None, expected: list[str], missed: int
) -> None:
    """Eleven fires passed: those that run and the range of those that do not make eleven, without a gap."""
    reconcile(store, [job(catch_up=policy, start_deadline=deadline)], START)
    plan(store, FIRST + 10 * MINUTE)
    rows = ledger(store)
    assert [row.state for row in rows] == expected
    assert (rows[0].fire_count, rows[0].scheduled_until) == (missed, FIRST + (missed - 1) * MINUTE)
    assert [row.scheduled_for for row in rows[1:]] == [FIRST + n * MINUTE for n in range(missed, 11)]


def test_a_clock_far_ahead_and_back_again_fires_nothing_twice(store: Database) -> None:
    """A year that never was is in the account as missed; back in the present nothing of it fires."""
    reconcile(store, [job(schedule="every 1h")], START)
    plan(store, START + 365 * DAY)
    before = ledger(store)
    assert [row.state for row in before] == ["missed", "queued"]
    assert before[0].fire_count == 365 * 24 - 1
    assert plan(store, START + 2 * DAY) == planning.Planned()
    assert ledger(store) == before


def test_an_emptied_time_is_filled_in_at_the_next_start(store: Database) -> None:
    """`next_run_at` without a value means never: reconcile gives it one where the schedule has one to give."""
    definitions = [job(), job("once", schedule="at 2026-01-01T00:00")]
    reconcile(store, definitions, START)
    with store.writing() as connection:
        connection.execute(update(schedules).values(next_run_at=None))
    assert reconcile(store, definitions, START).changed == 1
    assert planning.next_fire(store) == planning.NextFire("nightly", FIRST)


def test_a_reboot_row_of_nonsense_ends_no_start(store: Database) -> None:
    """It is marked and kept; the others of its sort run."""
    reconcile(store, [job("good", schedule="@reboot"), job("odd", schedule="@reboot")], START)
    odd = "params = '{'" if store.dialect.name == "sqlite" else "jitter_seconds = 1e300"
    with store.writing() as connection:
        connection.execute(text(f"UPDATE batchd_schedules SET {odd} WHERE id = 'odd'"))
    Planner(store).queue_reboots(START)
    assert [(run.schedule_id, run.state) for run in ledger(store)] == [("good", "queued")]
    with store.reading() as connection:
        marked = connection.execute(select(schedules.c.id).where(schedules.c.error.is_not(None))).scalars().all()
    assert marked == ["odd"]


@pytest.mark.parametrize("odd", ["timeout_seconds = 'NaN'", "retry = 'null'"])
def test_a_schedule_whose_runs_the_database_refuses_stops_no_other(store: Database, odd: str) -> None:
    """What a row of the schedules can hold and a run cannot: it is marked and kept, and the others are planned."""
    reconcile(store, [job("good"), job("odd"), job("other")], START)
    with store.writing() as connection:
        connection.execute(text(f"UPDATE batchd_schedules SET {odd} WHERE id = 'odd'"))
    Planner(store).plan(planning.due_schedule_ids(store, FIRST), FIRST, lambda: True)
    assert {run.schedule_id for run in ledger(store)} >= {"good", "other"}
    with store.reading() as connection:
        marked = connection.execute(select(schedules.c.id, schedules.c.error).where(schedules.c.error.is_not(None)))
        said = {row.id: row.error for row in marked}
    if store.dialect.name == "postgresql":
        assert said.keys() == {"odd"}
        assert said["odd"].startswith("the row cannot be planned")
        assert "INSERT" not in said["odd"]


def in_thread(action: Any) -> threading.Thread:
    """Do it in a thread and return the thread."""
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def is_locked_out(store: Database) -> bool:
    """Return whether some statement on the database waits for a lock; a transaction would see its first look again."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with store.reading() as connection:
        return bool(connection.execute(text(waiting)).scalar_one())


def test_a_pause_during_planning_takes_effect_behind_it(database: Database) -> None:
    """The pause waits for the transaction; the fire under way is planned once, and no other."""
    migrate(database)
    reconcile(database, [job(overlap=Overlap.ALLOW)], START)
    if database.dialect.name == "sqlite":
        plan(database, FIRST)
        assert control.pause(database, "nightly")
    else:
        with database.writing() as planner:
            planner.execute(select(schedules).with_for_update()).all()
            pausing = in_thread(lambda: control.pause(database, "nightly"))
            wait_until(lambda: is_locked_out(database), what="the pause waits")
            planner.execute(update(schedules).values(next_run_at=FIRST + MINUTE))
        pausing.join(10)
    assert plan(database, FIRST + 5 * MINUTE) == planning.Planned()
    assert control.resume(database, "nightly")
    assert plan(database, FIRST + 5 * MINUTE).queued == 1


def test_reconcile_beside_another_daemons_planning_has_the_last_word(store: Database) -> None:
    """The other one's fire is in the ledger, and the new rule decides when the next one is."""
    if store.dialect.name == "sqlite":
        return  # one daemon at a time
    reconcile(store, [job()], START)
    with store.writing() as planner:
        (row,) = planner.execute(select(schedules).with_for_update()).all()
        reconciling = in_thread(lambda: reconcile(store, [job(schedule="every 1h")], FIRST))
        wait_until(lambda: is_locked_out(store), what="reconcile waits")
        planner.execute(update(schedules).values(next_run_at=row.next_run_at + MINUTE))
    reconciling.join(10)
    assert next_run_at(store) == datetime(2026, 5, 1, 13, tzinfo=UTC)


def test_a_run_cannot_be_retried_by_hand_while_its_lease_is_reaped(store: Database) -> None:
    """It is running until it is queued again: a retry in between is refused, before and after."""
    reconcile(store, [job()], START)
    run_id = add_run(store, "running", lease_until=store.dialect.now_plus(-1), attempt=1, fence=1)
    for state in ("running", "queued"):
        with pytest.raises(control.NotPossible, match=state):
            control.retry(store, run_id, created_by=CreatedBy.CLI)
        reap_expired(store, mine={})
