"""A pass turns due schedules into runs, each fire exactly once, and accounts for what does not run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update

from batchd.db.engine import Database
from batchd.domain.job import CatchUp, CatchUpPolicy, Overlap
from batchd.scheduler.planner import Planner
from batchd.store import planning
from batchd.store.migrate import migrate
from batchd.store.schedules import reconcile
from batchd.store.schema import outbox, runs, schedules
from tests.support.definitions import job

START = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FIRST = datetime(2026, 5, 1, 12, 1, tzinfo=UTC)


@pytest.fixture
def store(database: Database) -> Database:
    """A migrated store."""
    migrate(database)
    return database


def plan(store: Database, now: datetime) -> planning.Planned:
    """Plan what is due at the moment."""
    return planning.add_due(store, planning.due_schedule_ids(store, now), now)


def all_runs(store: Database) -> list[Any]:
    """Return the ledger by fire time."""
    with store.reading() as connection:
        return list(connection.execute(select(runs).order_by(runs.c.scheduled_for, runs.c.id)).all())


def test_a_due_fire_becomes_a_queued_run(store: Database) -> None:
    """The run carries the job's settings, and `next_run_at` moves on with it."""
    reconcile(store, [job(start_deadline=MINUTE)], START)
    assert planning.due_schedule_ids(store, START) == ()
    assert planning.next_fire(store) == planning.NextFire("nightly", FIRST)
    assert plan(store, FIRST) == planning.Planned(schedules=1, queued=1)
    (run,) = all_runs(store)
    assert (run.state, run.scheduled_for, run.concurrency_key) == ("queued", FIRST, "nightly")
    assert (run.start_deadline_at, run.created_by) == (FIRST + MINUTE, "schedule")
    assert planning.next_fire(store) == planning.NextFire("nightly", FIRST + MINUTE)


def test_what_passed_unserved_is_one_missed_row(store: Database) -> None:
    """Catch-up `once` runs the latest fire; the older ones are counted. All of them have the job's settings."""
    reconcile(store, [job(timeout=MINUTE, mutex="one at a time", priority=7, params={"text": "é", "n": [1]})], START)
    assert plan(store, FIRST + 10 * MINUTE) == planning.Planned(schedules=1, queued=1, missed=10)
    missed, queued = all_runs(store)
    assert (missed.state, missed.reason, missed.fire_count) == ("missed", "catch_up", 10)
    with store.reading() as connection:
        schedule = connection.execute(select(schedules)).one()
    names = ("kind", "queue", "priority", "params", "timeout_seconds", "retry", "max_attempts", "mutex")
    as_written = [getattr(schedule, name) for name in names]
    assert as_written[2:4] == [7, {"text": "é", "n": [1]}]
    assert [[getattr(run, name) for name in names] for run in (missed, queued)] == [as_written] * 2
    assert (missed.scheduled_for, missed.scheduled_until) == (FIRST, FIRST + 9 * MINUTE)
    assert (queued.state, queued.scheduled_for, queued.created_by) == ("queued", FIRST + 10 * MINUTE, "catch_up")
    with store.reading() as connection:
        assert connection.execute(select(outbox.c.event)).scalars().all() == ["run.missed"]


@pytest.mark.parametrize(
    ("overlap", "states"),
    [
        (Overlap.SKIP, ["queued", "skipped", "skipped"]),
        (Overlap.QUEUE, ["queued", "queued", "skipped"]),
        (Overlap.ALLOW, ["queued", "queued", "queued"]),
    ],
)
def test_the_overlap_policy_decides_while_a_run_is_unfinished(
    store: Database, overlap: Overlap, states: list[str]
) -> None:
    """`skip` drops the fire, `queue` lets one wait, `allow` lets all."""
    reconcile(store, [job(overlap=overlap)], START)
    for minute in range(3):
        plan(store, FIRST + minute * MINUTE)
    assert [run.state for run in all_runs(store)] == states


def test_catch_up_all_runs_every_fire_one_after_another(store: Database) -> None:
    """Fires caught up together wait for each other instead of being skipped."""
    reconcile(store, [job(catch_up=CatchUpPolicy(CatchUp.ALL, 3, timedelta(days=1)))], START)
    plan(store, FIRST + 5 * MINUTE)
    assert [run.state for run in all_runs(store)] == ["missed", "queued", "queued", "queued"]


def test_a_clock_that_steps_back_fires_nothing_twice(store: Database) -> None:
    """Neither by itself nor when somebody moved `next_run_at` back."""
    reconcile(store, [job(overlap=Overlap.ALLOW)], START)
    plan(store, FIRST)
    assert plan(store, START).schedules == 0
    with store.writing() as connection:
        connection.execute(update(schedules).values(next_run_at=FIRST))
    assert plan(store, FIRST).queued == 0
    assert len(all_runs(store)) == 1


def test_a_schedule_that_cannot_be_planned_stops_no_other(store: Database) -> None:
    """It is marked, kept and told of; the others run."""
    reconcile(store, [job("good"), job("bad"), job("unreadable"), job("nowhere")], START)
    with store.writing() as connection:
        connection.execute(update(schedules).where(schedules.c.id == "bad").values(schedule="61 * * * *"))
        connection.execute(update(schedules).where(schedules.c.id == "nowhere").values(timezone="Mars/Olympus"))
        if store.dialect.name == "sqlite":
            connection.execute(text("UPDATE batchd_schedules SET params = '{' WHERE id = 'unreadable'"))
    Planner(store).plan(planning.due_schedule_ids(store, FIRST), FIRST, lambda: True)
    with store.reading() as connection:
        found = connection.execute(select(schedules.c.id, schedules.c.error, schedules.c.next_run_at)).all()
    broken = {row.id for row in found if row.error is not None and row.next_run_at is None}
    assert broken == {"bad", "nowhere"} | ({"unreadable"} if store.dialect.name == "sqlite" else set())
    assert {run.schedule_id for run in all_runs(store)} == {row.id for row in found} - broken


def test_two_daemons_plan_each_fire_once(store: Database) -> None:
    """A row that one of them has locked is the other one's to leave alone."""
    if store.dialect.name == "sqlite":
        pytest.skip("one daemon at a time holds a SQLite store")
    reconcile(store, [job("a"), job("b")], START)
    with store.writing() as other:
        other.execute(select(schedules).where(schedules.c.id == "a").with_for_update())
        assert plan(store, FIRST).queued == 1
    assert plan(store, FIRST).queued == 1
    assert len(all_runs(store)) == 2


def test_a_reboot_job_runs_once_a_start(store: Database) -> None:
    """It has no time of its own; a start that had to be tried again is one start."""
    reconcile(store, [job(schedule="@reboot", overlap=Overlap.ALLOW), job("timed")], START)
    assert planning.add_reboots(store, planning.reboot_schedule_ids(store), START).queued == 1
    assert planning.add_reboots(store, ["nightly"], START).queued == 0
    assert planning.add_reboots(store, ["nightly"], START + MINUTE).queued == 1
    assert [run.scheduled_for for run in all_runs(store)] == [START, START + MINUTE]
