"""Dead letters by the thousand: all of the selection is changed, or nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.store import bulk, queries
from batchd.store.bulk import Done, Selection
from batchd.store.control import NotPossible, RunUnknown
from batchd.store.migrate import migrate
from batchd.store.schema import outbox, runs
from tests.support.store_rows import LONG_AGO, add_run, add_schedule, run_row

FAILED = frozenset({RunState.FAILED})


@pytest.fixture
def store(database: Database) -> Database:
    """A migrated store with a job, and one that left the config."""
    migrate(database)
    add_schedule(database, max_attempts=7)
    add_schedule(database, "gone", removed_at=LONG_AGO)
    return database


def state(store: Database, run_id: int) -> str:
    """The run's state."""
    return str(run_row(store, run_id)["state"])


def test_failed_runs_of_a_job_and_a_day_are_queued_again(store: Database) -> None:
    """Each with fresh attempts; others are left alone, and each is told of in the outbox."""
    wanted = [add_run(store, "failed", attempt=3) for _ in range(3)]
    old, other, well = add_run(store, "failed"), add_run(store, "failed", None), add_run(store, "succeeded")
    with store.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == old).values(finished_at=LONG_AGO))
    selection = Selection(FAILED, "nightly", since=SystemClock().now() - timedelta(days=1))
    assert bulk.count(store, selection) == 3
    assert bulk.retry_all(store, selection, created_by=CreatedBy.CLI) == Done(3, 0)
    assert [state(store, run_id) for run_id in wanted] == ["queued"] * 3
    assert [state(store, run_id) for run_id in (old, other, well)] == ["failed", "failed", "succeeded"]
    assert {run_row(store, run_id)["max_attempts"] for run_id in wanted} == {10}
    with store.reading() as connection:
        told = connection.execute(select(outbox.c.run_id).where(outbox.c.event == "run.retrying")).scalars()
        assert sorted(told) == wanted


def test_no_work_is_queued_twice(store: Database) -> None:
    """Of a unique key the newest comes back, and none while an unfinished run has it; nor one whose job is gone."""
    older, newer = (add_run(store, "failed", unique_key="a") for _ in range(2))
    held = add_run(store, "failed", unique_key="b")
    add_run(store, "queued", unique_key="b")
    gone = add_run(store, "failed", "gone")
    assert bulk.retry_all(store, Selection(FAILED), created_by=CreatedBy.CLI) == Done(1, 3)
    assert [state(store, run_id) for run_id in (older, newer, held, gone)] == ["failed", "queued", "failed", "failed"]


def test_discarded_runs_stay_in_the_ledger_and_in_no_list_of_failures(store: Database) -> None:
    """They are cancelled, with a reason of their own, when they ended; waiting ones now."""
    failed, waiting, running = (add_run(store, each, queue="low") for each in ("failed", "queued", "running"))
    other = add_run(store, "failed", queue="high")
    states = frozenset({RunState.FAILED, RunState.QUEUED})
    ended = run_row(store, failed)["finished_at"]
    assert bulk.discard_all(store, Selection(states, queue="low")) == Done(2, 0)
    for run_id in (failed, waiting):
        row = run_row(store, run_id)
        assert (row["state"], row["reason"]) == ("cancelled", "discarded")
        assert row["finished_at"] is not None
    assert run_row(store, failed)["finished_at"] == ended
    assert state(store, running) == "running"
    assert [run.id for run in queries.list_runs(store, queries.RunFilter(states=frozenset({"failed"})))] == [other]


def test_what_a_run_has_queued_is_discarded_alone(store: Database) -> None:
    """The children of one fan-out that wait, and no other's."""
    parent = add_run(store, "succeeded")
    mine = [add_run(store, state, parent_id=parent, child_key=str(n)) for n, state in enumerate(("queued", "running"))]
    other = add_run(store, "queued", parent_id=parent + 100, child_key="0")
    assert bulk.discard_all(store, Selection(frozenset({RunState.QUEUED}), parent_id=parent)) == Done(1, 0)
    assert [state(store, run_id) for run_id in (*mine, other)] == ["cancelled", "running", "queued"]


def test_one_run_is_discarded_or_refused(store: Database) -> None:
    """What runs or is well is not put away."""
    failed, well = add_run(store, "failed"), add_run(store, "succeeded")
    bulk.discard_one(store, failed)
    assert state(store, failed) == "cancelled"
    with pytest.raises(NotPossible):
        bulk.discard_one(store, well)
    with pytest.raises(RunUnknown):
        bulk.discard_one(store, 12_345)
