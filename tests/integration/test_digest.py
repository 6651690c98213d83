"""The digest of a period: counted right on every dialect, without a glance at what lies outside of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.store.digest import BUCKETS, digest
from tests.support.store_rows import add_run, add_schedule, make_tables

UNTIL = datetime(2026, 11, 25, 7, 0, tzinfo=UTC)
SINCE = UNTIL - timedelta(days=1)


@pytest.fixture
def store(database: Database) -> Database:
    """An empty store with two jobs."""
    make_tables(database)
    add_schedule(database, "nightly")
    add_schedule(database, "sync-users", kind="sync")
    return database


def ended(store: Database, at: datetime, seconds: float = 10, **columns: Any) -> int:
    """Add a run of `nightly` that ended then, after so many seconds."""
    started = at - timedelta(seconds=seconds)
    return add_run(store, **({"state": "succeeded", "started_at": started, "finished_at": at} | columns))


def test_runs_are_counted_by_state_and_by_the_hour(store: Database) -> None:
    """The period's first moment counts, its last does not; the period before is counted beside it."""
    ended(store, SINCE)
    ended(store, SINCE + timedelta(minutes=90), state="failed", error="boom")
    ended(store, UNTIL - timedelta(microseconds=1000))
    ended(store, UNTIL)
    ended(store, SINCE - timedelta(hours=1))
    add_run(store, "missed", finished_at=UNTIL - timedelta(hours=1), fire_count=7)
    add_run(store, "running", started_at=SINCE)
    found = digest(store, SINCE, UNTIL)
    assert found.totals.states == {"succeeded": 2, "failed": 1, "missed": 7}
    assert (found.totals.runs, found.totals.failed) == (3, 1)
    assert found.totals.busy.total_seconds() == pytest.approx(30, abs=0.1)
    assert found.before.states == {"succeeded": 1}
    assert len(found.buckets) == BUCKETS
    assert [(each.succeeded, each.failed) for each in found.buckets[:2]] == [(1, 0), (0, 1)]
    assert found.buckets[-1].succeeded == 1
    assert found.buckets[1].start == SINCE + timedelta(hours=1)


def test_jobs_come_slowest_first(store: Database) -> None:
    """With their mean and longest time."""
    ended(store, UNTIL - timedelta(hours=1), 10)
    ended(store, UNTIL - timedelta(hours=2), 30, state="failed")
    ended(store, UNTIL - timedelta(hours=3), 100, job="sync-users", kind="sync")
    slowest, nightly = digest(store, SINCE, UNTIL).jobs
    assert (slowest.job, slowest.kind, slowest.runs) == ("sync-users", "sync", 1)
    assert (nightly.job, nightly.runs, nightly.failed) == ("nightly", 2, 1)
    assert nightly.mean.total_seconds() == pytest.approx(20, abs=0.1)
    assert nightly.longest.total_seconds() == pytest.approx(30, abs=0.1)


def test_results_are_summed_up_and_what_is_no_number_is_left_alone(store: Database) -> None:
    """Only of the kinds and keys that are known; large sums do not overflow."""
    at = UNTIL - timedelta(hours=1)
    for rows in (3_000_000_000, 5, "many", None, {"by": 1}):
        ended(store, at, result={"rows_deleted": rows, "chunks": 9})
    ended(store, at, job="sync-users", kind="sync", result={"added": 1, "changed": 2, "removed": 3, "fetched": 99})
    ended(store, at, job=None, kind="other", result={"rows_deleted": 1})
    assert digest(store, SINCE, UNTIL).totals.counted == {
        "cleanup": {"rows_deleted": 3_000_000_005},
        "sync": {"added": 1, "changed": 2, "removed": 3},
    }


def test_failures_come_newest_first_with_their_errors(store: Database) -> None:
    """And jobs that do not run at all are named."""
    ids = [ended(store, SINCE + timedelta(minutes=n), state="failed", error=f"e{n}", attempt=3) for n in range(12)]
    add_schedule(store, "broken", error="no such time zone")
    add_schedule(store, "asleep", paused_at=SINCE)
    add_schedule(store, "gone", error="whatever", removed_at=SINCE)
    found = digest(store, SINCE, UNTIL)
    assert [run.run_id for run in found.failures] == ids[:1:-1]
    assert (found.failures[0].error, found.failures[0].attempts, found.totals.failed) == ("e11", 3, 12)
    assert (dict(found.broken), found.paused) == ({"broken": "no such time zone"}, ("asleep",))


def test_an_empty_store_has_an_empty_digest(store: Database) -> None:
    """Nothing fails on nothing."""
    found = digest(store, SINCE, UNTIL)
    assert (found.totals.runs, found.jobs, found.failures, found.totals.counted) == (0, (), (), {})
