"""What the read models say, on every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from batchd.db.engine import Database
from batchd.domain.queue import QueueLimits, QueueRules, Rate
from batchd.store import meta, queries
from batchd.store.queries import RunFilter
from batchd.store.schema import rate_starts, runs
from tests.support.databases import open_database
from tests.support.store_rows import (
    LONG_AGO,
    add_attempt,
    add_log_line,
    add_run,
    add_schedule,
    add_worker,
    make_tables,
)


@pytest.fixture
def store(database: Database) -> Iterator[Database]:
    """A store with its tables and one job."""
    make_tables(database)
    add_schedule(database)
    return database


def test_an_empty_database_has_no_tables_and_gets_none(empty_url: str) -> None:
    """Asking creates neither a table nor a file."""
    with closing(open_database(empty_url)) as database:
        assert not meta.has_tables(database)
        if database.dialect.name == "sqlite":
            assert not Path(str(database.engine.url.database)).exists()
        make_tables(database)
        assert meta.has_tables(database)


def test_each_job_comes_with_its_newest_run(store: Database) -> None:
    """Removed jobs are left out, a job without a run has none."""
    add_schedule(store, "gone", removed_at=LONG_AGO)
    add_schedule(store, "idle", enabled=False)
    add_run(store, "failed")
    newest = add_run(store, "succeeded", started_at=LONG_AGO, finished_at=LONG_AGO + timedelta(seconds=90))
    idle, nightly = queries.jobs(store)
    assert (idle.name, idle.last_run, idle.enabled) == ("idle", None, False)
    assert nightly.last_run is not None
    assert (nightly.last_run.id, nightly.last_run.duration) == (newest, timedelta(seconds=90))
    assert queries.job_names(store) == ("idle", "nightly")


def test_runs_are_listed_newest_first_through_the_filter(store: Database) -> None:
    """By job, state, moment and page."""
    add_schedule(store, "other")
    old = add_run(store, "failed", finished_at=LONG_AGO)
    fresh = add_run(store, "succeeded")
    waiting = add_run(store)
    other = add_run(store, "failed", job="other")

    def listed(**wanted: object) -> list[int]:
        return [run.id for run in queries.list_runs(store, RunFilter(**wanted))]  # type: ignore[arg-type]

    assert listed() == [other, waiting, fresh, old]
    assert listed(limit=2) == [other, waiting]
    assert listed(before_id=fresh) == [old]
    assert listed(job="nightly") == [waiting, fresh, old]
    assert listed(states=frozenset({"failed"})) == [other, old]
    assert listed(since=datetime.now(UTC) - timedelta(hours=1)) == [other, waiting, fresh]


def test_a_run_is_shown_with_attempts_and_its_last_lines(store: Database) -> None:
    """Both oldest first; of many lines the last ones."""
    run_id = add_run(store, "failed", attempt=2)
    add_attempt(store, run_id, 2)
    add_attempt(store, run_id, 1, outcome="failed", error_type="ValueError", error_message="no")
    for number in range(5):
        add_log_line(store, run_id, f"line {number}")
    detail = queries.run_detail(store, run_id, lines=2)
    assert detail is not None
    assert [attempt.fence for attempt in detail.attempts] == [1, 2]
    assert [line.message for line in detail.log_lines] == ["line 3", "line 4"]
    assert queries.run_detail(store, run_id + 1) is None


def test_status_tells_the_living_from_the_dead(store: Database) -> None:
    """A daemon is alive while its heartbeat is younger than a lease and it has not said that it stopped."""
    add_worker(store, "alive")
    add_worker(store, "silent", heartbeat_age=300)
    add_worker(store, "stopped", state="stopped")
    status = queries.store_status(store)
    assert [worker.id for worker in status.alive] == ["alive"]
    assert len(status.workers) == 3
    assert [worker.id for worker in queries.alive_workers(store)] == ["alive"]


def test_status_measures_what_waits(store: Database) -> None:
    """Unserved fires, claimable runs, depths; what its running predecessor holds back is not late."""
    add_schedule(store, "late", next_run_at=LONG_AGO)
    add_schedule(store, "paused", next_run_at=LONG_AGO - timedelta(days=1), paused_at=LONG_AGO)
    add_run(store, "running", concurrency_key="nightly")
    add_run(store, available_at=LONG_AGO, concurrency_key="nightly")
    add_run(store, available_at=LONG_AGO + timedelta(hours=1), job="late", concurrency_key="late")
    add_run(store, available_at=datetime.now(UTC) + timedelta(hours=1), job="late")
    status = queries.store_status(store)
    assert status.oldest_due == LONG_AGO
    assert status.oldest_ready == LONG_AGO + timedelta(hours=1)
    (queue,) = status.queues
    assert (queue.queue, queue.ready, queue.later, queue.running) == ("default", 2, 1, 1)


def test_a_run_before_a_full_queue_is_not_late(store: Database) -> None:
    """Nor right after a place has become free: the next run is about to begin. A queue that stands still is late."""
    running = add_run(store, "running", job=None, queue="mail")
    add_run(store, job=None, queue="mail", available_at=LONG_AGO)
    hour = timedelta(hours=1)
    full = [
        QueueLimits({"mail": QueueRules(max_running=1)}),
        QueueLimits(concurrency={"mail": 1}),
        QueueLimits({"mail": QueueRules(rate=Rate(2, hour))}),
    ]
    with store.writing() as connection:
        until = store.dialect.now_plus(hour.total_seconds())
        connection.execute(rate_starts.insert().values(name="queue:mail", count=2, counts_until=until))
    late = [queries.store_status(store, limits).oldest_ready for limits in (QueueLimits(), *full)]
    assert late == [LONG_AGO, None, None, None]
    roomy = [QueueLimits({"mail": QueueRules(max_running=2, rate=Rate(3, hour))}), QueueLimits(concurrency={"mail": 2})]
    assert {queries.store_status(store, limits).oldest_ready for limits in roomy} == {LONG_AGO}
    for moment, said in ((datetime.now(UTC), None), (LONG_AGO, LONG_AGO)):
        with store.writing() as connection:
            ended = {"state": "succeeded", "finished_at": moment, "lease_until": None}
            connection.execute(update(runs).where(runs.c.id == running).values(ended))
        assert queries.store_status(store, full[0]).oldest_ready == said


def test_status_counts_the_last_day(store: Database) -> None:
    """Only runs that finished within 24 hours, by state."""
    add_run(store, "failed", finished_at=LONG_AGO)
    add_run(store, "failed")
    add_run(store, "succeeded")
    add_run(store, "succeeded")
    assert queries.store_status(store).last_day == {"failed": 1, "succeeded": 2}
