"""`then`: what follows a run is queued in the transaction that records its success; batches go on when all are done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome, Decision
from batchd.domain.run import CreatedBy, RunState
from batchd.engine.fan_in import FanIn
from batchd.errors import LeaseLost
from batchd.jobs.contract import JobContext
from batchd.store import fan_outs
from batchd.store.batches import group_in
from batchd.store.claimed import Claim, ClaimRequest
from batchd.store.claims import claim
from batchd.store.enqueue import NewRun, enqueue_in
from batchd.store.finish import Ending, _finish_together, finish
from batchd.store.history import Retention, prune
from batchd.store.migrate import migrate
from batchd.store.schema import outbox, runs, schedules
from tests.support.databases import open_database
from tests.support.engine_room import engine_room
from tests.support.store_rows import add_run, add_schedule, run_row
from tests.support.waiting import wait_until


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def store(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated store with the jobs `report` and `tell`."""
    opened = open_database(request.getfixturevalue(request.param))
    migrate(opened)
    add_schedule(opened, "tell", kind="noop", params={"text": "done", "loud": False}, queue="mail")
    yield opened
    opened.close()


def claimed(store: Database) -> Claim:
    """Claim the one run that waits."""
    (one,) = claim(store, ClaimRequest("w1", 1, timedelta(seconds=30), {}))
    return one


def succeeded(store: Database, one: Claim, **result: Any) -> tuple[Ending, ...]:
    """Record the claim's success."""
    ending = Ending(one, AttemptOutcome.SUCCEEDED, Decision(RunState.SUCCEEDED, None, None), result, None)
    return finish(store, [ending])


def followers_of(store: Database, run_id: int) -> list[Any]:
    """The runs that follow a run."""
    with store.reading() as connection:
        return list(connection.execute(select(runs).where(runs.c.after_id == run_id).order_by(runs.c.id)).all())


def test_the_next_job_is_queued_with_the_success(store: Database) -> None:
    """Its own settings stand, what the result has for it goes along, and its row says which run it follows."""
    add_schedule(store, "report", kind="noop", then_run={"job": "tell", "take": ["file", "rows"]})
    run_id = add_run(store, job="report", kind="noop")
    succeeded(store, claimed(store), file="a.csv", other=1)
    (next_run,) = followers_of(store, run_id)
    assert (next_run.schedule_id, next_run.queue, next_run.state) == ("tell", "mail", "queued")
    assert next_run.params == {"text": "done", "loud": False, "file": "a.csv"}
    assert (next_run.created_by, next_run.parent_id) == ("then", None)


def test_params_with_places_are_filled_in(store: Database) -> None:
    """Types stay, depths are reached, and a place that the result does not have leaves its parameter out."""
    params = {
        "text": "{result.rows} rows of run {run_id}",
        "first": "{result.files.0}",
        "name": "{result.deep.name}",
        "absent": "{result.nothing}",
        "plain": 5,
    }
    add_schedule(store, "report", kind="noop", then_run={"job": "tell", "params": params, "delay_seconds": 3600})
    run_id = add_run(store, job="report", kind="noop")
    succeeded(store, claimed(store), rows=7, files=[{"n": 1}, 2], deep={"name": "x"})
    (next_run,) = followers_of(store, run_id)
    wanted = {"text": f"7 rows of run {run_id}", "first": {"n": 1}, "name": "x", "plain": 5, "loud": False}
    assert next_run.params == wanted
    assert next_run.available_at - next_run.created_at == timedelta(hours=1)


def test_a_failure_is_followed_by_nothing(store: Database) -> None:
    """Nor is a retry."""
    add_schedule(store, "report", kind="noop", then_run={"job": "tell"})
    run_id = add_run(store, job="report", kind="noop")
    again = Decision(RunState.QUEUED, None, timedelta(0))
    finish(store, [Ending(claimed(store), AttemptOutcome.FAILED, again, None, None)])
    failed = Decision(RunState.FAILED, None, None)
    finish(store, [Ending(claimed(store), AttemptOutcome.FAILED, failed, {"file": "a"}, None)])
    assert followers_of(store, run_id) == []


def test_a_success_whose_answer_got_lost_is_followed_once(store: Database) -> None:
    """The ending is recorded again, and matches no row."""
    add_schedule(store, "report", kind="noop", then_run={"job": "tell"})
    run_id = add_run(store, job="report", kind="noop")
    one = claimed(store)
    succeeded(store, one)
    assert len(succeeded(store, one)) == 1
    assert len(followers_of(store, run_id)) == 1


def test_success_and_follower_are_one_transaction(store: Database) -> None:
    """Where the whole is rolled back, there is neither."""
    add_schedule(store, "report", kind="noop", then_run={"job": "tell"})
    run_id = add_run(store, job="report", kind="noop")
    one = claimed(store)
    success = Ending(one, AttemptOutcome.SUCCEEDED, Decision(RunState.SUCCEEDED, None, None), {}, None)

    class Killed(Exception):
        pass

    writing = store.writing

    @contextlib.contextmanager
    def dying() -> Iterator[Any]:
        with writing() as connection:
            yield connection
            raise Killed

    store.writing = dying  # type: ignore[method-assign,assignment]
    with pytest.raises((Killed, LeaseLost)):
        _finish_together(store, [success])
    store.writing = writing  # type: ignore[method-assign]
    assert run_row(store, run_id)["state"] == "running"
    assert followers_of(store, run_id) == []


@pytest.mark.parametrize(
    ("then", "error"),
    [
        ({"job": "gone"}, "gone"),
        (3, "TypeError"),
        ({"job": "tell", "params": [1]}, "AttributeError"),
        ({"job": "tell", "delay_seconds": 1e300}, "OverflowError"),
        ({"job": "edited"}, "DataError"),
    ],
)
def test_a_follower_that_cannot_be_queued_does_not_undo_the_success(store: Database, then: Any, error: str) -> None:
    """Its job is gone, or somebody edited the row: it is an error in the outbox."""
    if error == "DataError" and store.dialect.name == "sqlite":
        pytest.skip("SQLite takes every number")
    add_schedule(store, "report", kind="noop", then_run={"job": "tell"})
    add_schedule(store, "edited", kind="noop", params={}, timeout_seconds=float("nan"))
    with store.writing() as connection:
        connection.execute(update(schedules).where(schedules.c.id == "report").values(then_run=then))
    run_id = add_run(store, job="report", kind="noop")
    succeeded(store, claimed(store))
    assert run_row(store, run_id)["state"] == "succeeded"
    with store.reading() as connection:
        said = connection.execute(select(outbox.c.payload).where(outbox.c.event == "run.then_failed")).scalar_one()
    assert error in said["error"]


def test_a_chain_runs_to_its_end(store: Database) -> None:
    """In a real engine, with results handed on twice."""
    add_schedule(store, "one", kind="one", params={}, then_run={"job": "two", "params": {}})
    add_schedule(store, "two", kind="two", params={}, then_run={"job": "three", "params": {}})
    add_schedule(store, "three", kind="three", params={})
    order: list[str] = []

    def step(name: str) -> Any:
        return lambda _context: order.append(name) or {"n": 1}

    with engine_room(store, {name: step(name) for name in ("one", "two", "three")}):
        add_run(store, job="one", kind="one")
        wait_until(lambda: len(order) == 3, seconds=30)
    assert order == ["one", "two", "three"]


def complete(store: Database) -> None:
    """Let the fan-in look once."""
    FanIn(store, lambda: None, SystemClock()).run_once(SystemClock().now())


def end(store: Database, state: str, *run_ids: int) -> None:
    """Bring runs to a final state."""
    with store.writing() as connection:
        change = {"state": state, "finished_at": store.dialect.now(), "lease_until": None}
        connection.execute(update(runs).where(runs.c.id.in_(run_ids)).values(change))


def batch_of(store: Database, count: int = 3) -> Any:
    """Queue a batch with both endings."""
    work = [NewRun(kind="work", params={"n": n}) for n in range(count)]
    with store.writing() as connection:
        return group_in(
            connection,
            store,
            enqueue_in(connection, store, work, created_by=CreatedBy.API),
            created_by=CreatedBy.API,
            name="monthly",
            on_complete=NewRun(job="tell", params={"text": "{succeeded} of {children}, {failed} failed"}),
            on_success=NewRun(job="tell", params={"text": "all {children} of {run_id}", "loud": True}),
        )


def test_runs_that_were_queued_otherwise_become_a_batch(store: Database) -> None:
    """In the transaction that queues them; one that belongs to another batch stays there."""
    other = batch_of(store, 1)
    with store.writing() as connection:
        ids = enqueue_in(connection, store, [NewRun(kind="work")] * 2, created_by=CreatedBy.API)
        mixed = (*ids, *other.runs)
        batch = group_in(connection, store, mixed, created_by=CreatedBy.API, on_success=NewRun(job="tell"))
    assert batch.runs == ids
    end(store, "succeeded", *ids)
    complete(store)
    assert len(followers_of(store, batch.id)) == 1
    assert followers_of(store, other.id) == []


def test_a_batch_of_nothing_is_complete_at_once(store: Database) -> None:
    """Nothing failed, so it succeeded."""
    batch = batch_of(store, 0)
    complete(store)
    assert len(followers_of(store, batch.id)) == 2


def test_an_unfinished_batch_is_kept(store: Database) -> None:
    """Retention takes neither the batch nor its final runs before all are final."""
    batch = batch_of(store)
    end(store, "succeeded", *batch.runs[:2])
    add_run(store, "succeeded", job=None)
    with store.writing() as connection:
        old = store.dialect.now_plus(-86_400 * 9)
        connection.execute(update(runs).where(runs.c.finished_at.is_not(None)).values(finished_at=old))
    prune(store, Retention(None, timedelta(days=1), timedelta(days=1)))
    assert run_row(store, batch.id)["state"] == "succeeded"
    assert run_row(store, batch.runs[0])["state"] == "succeeded"


def test_children_of_a_run_are_followed_by_on_success(store: Database) -> None:
    """As those of a batch are: JobContext.children takes it too."""
    add_schedule(store, "fan", kind="fan", params={})

    def fan(context: JobContext) -> Any:
        with context.children(on_success=NewRun(job="tell")) as children:
            children.add([NewRun(kind="work", key=str(n)) for n in range(3)])

    with engine_room(store, {"fan": fan, "work": lambda _context: {}, "noop": lambda _context: {}}):
        run_id = add_run(store, job="fan", kind="fan")
        wait_until(lambda: followers_of(store, run_id), seconds=30)
    assert fan_outs.has_open(store) is False
