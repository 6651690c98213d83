"""What a person's requests write, on every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.store import control
from batchd.store.schema import outbox, schedules
from tests.support.store_rows import LONG_AGO, add_run, add_schedule, make_tables, run_row


@pytest.fixture
def store(database: Database) -> Iterator[Database]:
    """A store with its tables and one job."""
    make_tables(database)
    add_schedule(database)
    return database


def told(store: Database) -> list[tuple[str, int]]:
    """Return what the outbox holds."""
    with store.reading() as connection:
        return [(row.event, row.run_id) for row in connection.execute(select(outbox).order_by(outbox.c.id))]


def test_a_triggered_run_takes_after_its_job(store: Database) -> None:
    """Queue, priority, timeout and retries are the job's; single params are replaced; it has no fire time."""
    run = run_row(store, control.trigger(store, "nightly", {"dry_run": True}, created_by=CreatedBy.CLI))
    assert run["params"] == {"table": "logs", "dry_run": True}
    assert (run["state"], run["scheduled_for"], run["created_by"]) == ("queued", None, "cli")
    assert (run["priority"], run["timeout_seconds"], run["max_attempts"], run["attempt"]) == (5, 60.0, 3, 0)
    assert run["concurrency_key"] == "nightly"


def test_a_job_that_may_overlap_has_no_concurrency_key(store: Database) -> None:
    """Its triggered runs run beside each other."""
    add_schedule(store, "free", overlap="allow")
    assert run_row(store, control.trigger(store, "free", {}, created_by=CreatedBy.CLI))["concurrency_key"] is None


def test_a_trigger_wakes_a_listening_daemon(store: Database) -> None:
    """Within the wait of one listener, far below a second."""
    source = store.dialect.wake_source(store.engine)
    try:
        control.trigger(store, "nightly", {}, created_by=CreatedBy.CLI)
        assert Topic.RUNS in source.wait(timedelta(seconds=1))
    finally:
        source.close()


@pytest.mark.parametrize(("name", "columns"), [("unknown", None), ("gone", {"removed_at": LONG_AGO})])
def test_a_job_that_is_not_there_is_refused(store: Database, name: str, columns: dict[str, object] | None) -> None:
    """Unknown and removed jobs, with the way out as the hint."""
    if columns:
        add_schedule(store, name, **columns)
    for request in (control.pause, control.resume):
        with pytest.raises(control.JobUnknown, match=name):
            request(store, name)
    with pytest.raises(control.JobUnknown) as raised:
        control.trigger(store, name, {}, created_by=CreatedBy.CLI)
    assert raised.value.hint


def test_pause_and_resume_say_whether_they_changed_anything(store: Database) -> None:
    """The second time is not an error."""
    assert control.pause(store, "nightly") is True
    assert control.pause(store, "nightly") is False
    with store.reading() as connection:
        assert connection.execute(select(schedules.c.paused_at)).scalar_one() is not None
    assert control.resume(store, "nightly") is True
    assert control.resume(store, "nightly") is False


def test_a_queued_run_is_cancelled_at_once(store: Database) -> None:
    """With its reason, its end and its outbox row."""
    run_id = add_run(store)
    assert control.request_cancel(store, run_id) is control.Cancelled.AT_ONCE
    run = run_row(store, run_id)
    assert (run["state"], run["reason"]) == ("cancelled", "requested")
    assert run["finished_at"] is not None
    assert told(store) == [("run.cancelled", run_id)]


def test_a_running_run_is_asked_to_stop(store: Database) -> None:
    """The row says so once, and the daemon is woken; the run's end is the daemon's to write."""
    run_id = add_run(store, "running")
    source = store.dialect.wake_source(store.engine)
    try:
        assert control.request_cancel(store, run_id) is control.Cancelled.REQUESTED
        assert Topic.CANCEL in source.wait(timedelta(seconds=1))
    finally:
        source.close()
    first = run_row(store, run_id)
    assert (first["state"], told(store)) == ("running", [])
    assert control.request_cancel(store, run_id) is control.Cancelled.REQUESTED
    assert run_row(store, run_id)["cancel_requested_at"] == first["cancel_requested_at"] is not None


@pytest.mark.parametrize("state", ["succeeded", "failed", "skipped", "missed", "cancelled", "quarantined"])
def test_a_finished_run_cannot_be_cancelled(store: Database, state: str) -> None:
    """The message says what it is."""
    with pytest.raises(control.NotPossible, match=state):
        control.request_cancel(store, add_run(store, state))


def test_a_run_that_is_not_there_is_refused(store: Database) -> None:
    """By both requests that name a run."""
    with pytest.raises(control.RunUnknown):
        control.request_cancel(store, 404)
    with pytest.raises(control.RunUnknown):
        control.retry(store, 404, created_by=CreatedBy.CLI)


@pytest.mark.parametrize("state", ["failed", "cancelled", "quarantined", "missed"])
def test_a_retried_run_gets_its_jobs_budget_again(store: Database, state: str) -> None:
    """The same row, queued, with the job's number of attempts on top of those used up, and no old deadline."""
    run_id = add_run(
        store,
        state,
        attempt=3,
        max_attempts=3,
        error="no",
        reason="error",
        start_deadline_at=LONG_AGO,
        losses=2,
        waits_for="mutex:x",
    )
    control.retry(store, run_id, created_by=CreatedBy.CLI)
    run = run_row(store, run_id)
    assert (run["state"], run["attempt"], run["max_attempts"], run["losses"]) == ("queued", 3, 6, 0)
    assert (run["finished_at"], run["error"], run["reason"], run["start_deadline_at"]) == (None, None, None, None)
    assert run["waits_for"] is None
    assert told(store) == [("run.retrying", run_id)]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "skipped"])
def test_only_runs_that_ended_badly_can_be_retried(store: Database, state: str) -> None:
    """The hint names the states, and how to start a new run."""
    with pytest.raises(control.NotPossible, match=state) as raised:
        control.retry(store, add_run(store, state), created_by=CreatedBy.CLI)
    assert "batchd trigger nightly" in str(raised.value.hint)


def test_a_retry_never_doubles_an_unfinished_twin(store: Database) -> None:
    """The unique key of unfinished runs decides, and nothing is changed."""
    run_id = add_run(store, "failed", unique_key="k")
    add_run(store, unique_key="k")
    with pytest.raises(control.NotPossible, match="cannot be retried"):
        control.retry(store, run_id, created_by=CreatedBy.CLI)
    assert run_row(store, run_id)["state"] == "failed"
