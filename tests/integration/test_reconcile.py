"""Reconcile brings the rows in line with the config and leaves alone what did not change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from batchd.db.engine import Database
from batchd.store import planning
from batchd.store.migrate import migrate
from batchd.store.schedules import ReconcileReport, reconcile
from batchd.store.schema import outbox, runs, schedules
from tests.support.definitions import job

START = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
LATER = START + timedelta(minutes=30)
FIRST = datetime(2026, 5, 1, 12, 1, tzinfo=UTC)


@pytest.fixture
def store(database: Database) -> Database:
    """A migrated store."""
    migrate(database)
    return database


def row(store: Database, name: str = "nightly") -> Any:
    """Return the job's row."""
    with store.reading() as connection:
        return connection.execute(select(schedules).where(schedules.c.id == name)).one()


def test_an_unchanged_schedule_keeps_its_time(store: Database) -> None:
    """What was missed while the daemon was down is still seen after a restart."""
    assert reconcile(store, [job()], START) == ReconcileReport(1, 0, 0, 0, ())
    before = row(store)
    assert reconcile(store, [job()], LATER) == ReconcileReport(0, 0, 0, 1, ())
    assert row(store) == before


def test_only_a_new_time_rule_moves_the_next_run(store: Database) -> None:
    """Changed params leave `next_run_at`; a changed schedule, zone or `enabled` recomputes it."""
    reconcile(store, [job()], START)
    assert reconcile(store, [job(params={"table": "other"})], LATER).changed == 1
    assert (row(store).params, row(store).next_run_at) == ({"table": "other"}, FIRST)
    reconcile(store, [job(enabled=False)], LATER)
    assert row(store).next_run_at is None
    reconcile(store, [job(schedule="every 1h")], LATER)
    assert row(store).next_run_at == datetime(2026, 5, 1, 13, tzinfo=UTC)


@pytest.mark.parametrize("change", [{"schedule": "every 1h"}, {"timezone": "Asia/Tokyo"}, {"enabled": False}])
def test_what_a_changed_schedule_still_owed_is_accounted_for(store: Database, change: dict[str, Any]) -> None:
    """One `missed` row with the count and the range, told of; nothing where nothing was due, or the job paused."""
    reconcile(store, [job(), job("due_later", schedule="@yearly"), job("paused")], START)
    with store.writing() as connection:
        connection.execute(schedules.update().where(schedules.c.id == "paused").values(paused_at=START))
    changed = [job(**change), job("due_later", **change), job("paused", **change)]
    assert reconcile(store, changed, LATER).changed == 3
    with store.reading() as connection:
        found = connection.execute(select(runs)).one()
        told = connection.execute(select(outbox.c.event, outbox.c.schedule_id)).all()
    assert (found.schedule_id, found.state, found.reason) == ("nightly", "missed", "schedule_changed")
    assert (found.scheduled_for, found.scheduled_until, found.fire_count) == (FIRST, LATER.replace(second=0), 30)
    assert found.kind == "cleanup"
    assert told == [("run.missed", "nightly")]
    assert reconcile(store, changed, LATER).unchanged == 3


def test_a_removed_job_keeps_its_history(store: Database) -> None:
    """Its queued runs are cancelled and told of; it may come back."""
    reconcile(store, [job(), job("other")], START)
    planning.add_due(store, ["nightly"], FIRST)
    assert reconcile(store, [job("other")], LATER).removed == 1
    assert (row(store).removed_at is not None, row(store).next_run_at) == (True, None)
    with store.reading() as connection:
        assert connection.execute(select(runs.c.state, runs.c.reason)).all() == [("cancelled", "job_removed")]
        assert connection.execute(select(outbox.c.event)).scalars().all() == ["run.cancelled"]
    assert reconcile(store, [job(), job("other")], LATER) == ReconcileReport(0, 1, 0, 1, ())
    assert row(store).removed_at is None
    assert row(store).next_run_at > LATER
