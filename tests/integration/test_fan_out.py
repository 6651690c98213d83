"""fan_out queues one run for each row, once, and what is to follow when all of them are final, once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.domain.run import CreatedBy
from batchd.engine.fan_in import FanIn
from batchd.errors import JobError, RunInterrupted
from batchd.jobs.kinds.fan_out import KIND
from batchd.store import fan_outs
from batchd.store.enqueue import NewRun, child_key, enqueue
from batchd.store.history import Retention, prune
from batchd.store.migrate import migrate
from batchd.store.queries import run_detail
from batchd.store.schema import runs
from tests.support.cleaning import execute
from tests.support.databases import open_database
from tests.support.job_context import DirectContext
from tests.support.store_rows import add_run, add_schedule, run_row

_ROWS = 57


@pytest.fixture
def store(database: Database) -> Database:
    """A store with the jobs `fan` and `greet`."""
    migrate(database)
    add_schedule(database, "fan", kind="fan_out")
    add_schedule(database, "greet", kind="noop", params={"text": "hi", "loud": False}, queue="mail", priority=7)
    return database


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Database]:
    """A database of its own with 57 people: the walked one is never the store, as in the worst case."""
    opened = open_database(f"sqlite:///{tmp_path / 'app.db'}", name="app")
    execute(opened, "CREATE TABLE people (id integer PRIMARY KEY, name text, team text)")
    with opened.writing() as connection:
        connection.execute(
            text("INSERT INTO people VALUES (:id, :name, :team)"),
            [{"id": n, "name": f"p{n}", "team": "ab"[n % 2]} for n in range(1, _ROWS + 1)],
        )
    yield opened
    opened.close()


@pytest.fixture
def context(store: Database, app: Database) -> DirectContext:
    """The context of a running run of `fan`."""
    run_id = add_run(store, "running", job="fan", kind="fan_out", fence=1)
    return DirectContext({"app": app}, store=store, run_id=run_id)


def fan_out(context: DirectContext, **params: Any) -> JsonObject:
    """Run the kind over `people`."""
    filled: dict[str, Any] = {
        "database": "app",
        "table": "people",
        "batch_size": 10,
        "enqueue": {"job": "greet", "params": {"id": "{id}", "text": "hello {name}"}},
    }
    return KIND.run(KIND.params.model_validate(filled | params), context)


def children_of(store: Database, run_id: int) -> list[Any]:
    """The rows of a run's children, in the order in which they were queued."""
    with store.reading() as connection:
        return list(connection.execute(select(runs).where(runs.c.parent_id == run_id).order_by(runs.c.id)).all())


def set_state(store: Database, run_id: int, state: str) -> None:
    """Bring a run to a final state, as an engine or somebody with psql does."""
    with store.writing() as connection:
        change = {"state": state, "finished_at": store.dialect.now(), "lease_until": None}
        connection.execute(update(runs).where(runs.c.id == run_id).values(change))


def test_each_row_becomes_a_run(store: Database, context: DirectContext) -> None:
    """With the job's settings but for what is said, its params filled in with their types, waiting for no sibling."""
    result = fan_out(context, enqueue={"job": "greet", "priority": -2, "params": {"id": "{id}", "text": "{{{name}}}"}})
    assert result == {"rows": _ROWS, "queued": _ROWS, "already_queued": 0, "dry_run": False}
    children = children_of(store, context.run_id)
    assert [child.params["id"] for child in children] == list(range(1, _ROWS + 1))
    first = children[0]
    assert first.params == {"id": 1, "text": "{p1}", "loud": False}
    assert (first.schedule_id, first.kind, first.queue, first.priority) == ("greet", "noop", "mail", -2)
    assert (first.state, first.created_by, first.concurrency_key, first.child_key) == ("queued", "job", None, "1")
    assert first.max_attempts == 3


def test_a_run_of_a_kind_needs_no_job(store: Database, context: DirectContext) -> None:
    """Options that a job would have come from the config of the fan-out, or from the defaults."""
    enqueued = {
        "kind": "noop",
        "queue": "mail",
        "delay": "1h",
        "timeout": "5m",
        "max_attempts": 9,
        "params": {"a": [1]},
        "unique_key": "one of team {team}",
        "unique_period": "1d",
        "tags": ["fan", "team-{team}", "{team}"],
        "metadata": {"who": {"id": "{id}"}},
    }
    fan_out(context, enqueue=enqueued)
    child = next(each for each in children_of(store, context.run_id) if each.child_key == "1")
    assert (child.schedule_id, child.kind, child.queue, child.params) == (None, "noop", "mail", {"a": [1]})
    assert (child.timeout_seconds, child.max_attempts) == (300.0, 9)
    assert child.available_at - child.created_at == timedelta(hours=1)
    assert (child.unique_key, child.tags) == ("one of team b", ["fan", "team-b", "b"])
    assert child.metadata == {"who": {"id": 1}}
    for each in children_of(store, context.run_id):
        set_state(store, each.id, "succeeded")
    again = DirectContext(
        context.databases, store=store, run_id=add_run(store, "running", job="fan", kind="fan_out", fence=1)
    )
    assert fan_out(again, enqueue=enqueued)["queued"] == 0, "within the period, those that succeeded count too"


def test_a_batch_becomes_a_run_with_lists(store: Database, context: DirectContext) -> None:
    """With `run_per = "batch"` a place becomes the list of its column's values."""
    result = fan_out(context, run_per="batch", enqueue={"job": "greet", "params": {"ids": "{id}"}})
    assert (result["rows"], result["queued"]) == (_ROWS, 6)
    lists = [child.params["ids"] for child in children_of(store, context.run_id)]
    assert [number for ids in lists for number in ids] == list(range(1, _ROWS + 1))


def test_an_interrupted_walk_queues_no_row_twice(store: Database, context: DirectContext) -> None:
    """Stopped after each batch, and children gone on meanwhile: each row has one run all the same."""
    attempt = context
    for _ in range(30):
        try:
            attempt.stop_at_check = 2
            result = fan_out(attempt)
        except RunInterrupted:
            for child in children_of(store, context.run_id):
                set_state(store, child.id, "succeeded")
            attempt = attempt.next_attempt()
            continue
        break
    assert attempt.attempt > 3
    assert result["queued"] == _ROWS
    assert Counter(child.child_key for child in children_of(store, context.run_id)) == {
        str(n): 1 for n in range(1, _ROWS + 1)
    }


def test_a_walk_from_its_beginning_finds_its_runs(store: Database, context: DirectContext) -> None:
    """Without its checkpoint (somebody deleted it) it meets the runs it has queued, and adds what is new."""
    fan_out(context)
    for child in children_of(store, context.run_id)[:20]:
        set_state(store, child.id, "succeeded")
    execute(store, "DELETE FROM batchd_checkpoints")
    execute(context.database("app"), "INSERT INTO people VALUES (1000, 'new', 'a')")
    result = fan_out(context.next_attempt())
    assert (result["rows"], result["queued"], result["already_queued"]) == (_ROWS + 1, 1, _ROWS)


def test_a_dry_run_queues_nothing(store: Database, context: DirectContext) -> None:
    """It says how many runs there would be."""
    assert fan_out(context, dry_run=True)["runs_to_queue"] == _ROWS
    assert children_of(store, context.run_id) == []
    with store.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM batchd_fan_outs")).scalar_one() == 0


def test_what_cannot_be_filled_in_is_told_first(store: Database, context: DirectContext) -> None:
    """A place without a column, a key that two rows share, a job that is gone: an error, and no run."""
    with pytest.raises(JobError, match=r"place \{nmae\}"):
        fan_out(context, enqueue={"job": "greet", "params": {"text": "{nmae}"}})
    other = DirectContext(context.databases, store=store, run_id=add_run(store, "running", job="fan", fence=1))
    with pytest.raises(JobError, match="two rows with the key team=a"):
        fan_out(other, key=["team"])
    with pytest.raises(JobError, match="no job 'gret'"):
        fan_out(context, enqueue={"job": "gret"})
    assert children_of(store, context.run_id) == []


def test_on_complete_is_queued_once_when_all_children_are_final(
    store: Database, context: DirectContext, database_url: str
) -> None:
    """However they ended, by whichever of many daemons looking at once; the counts are in the parent's result."""
    follow = {"job": "greet", "params": {"text": "{succeeded} of {children} after {run_id}", "failed": "{failed}"}}
    fan_out(context, on_complete=follow)
    children = children_of(store, context.run_id)
    ends = ["succeeded"] * 50 + ["failed", "cancelled", "missed", "quarantined", "failed", "succeeded"]
    for child, state in zip(children[:-1], ends, strict=True):
        set_state(store, child.id, state)
    set_state(store, context.run_id, "succeeded")
    assert fan_outs.complete(store) == ()
    detail = run_detail(store, context.run_id)
    assert detail is not None
    assert detail.children == {"succeeded": 51, "failed": 2, "cancelled": 1, "missed": 1, "quarantined": 1, "queued": 1}
    set_state(store, children[-1].id, "succeeded")
    found: list[fan_outs.Completed] = []
    barrier = threading.Barrier(4)

    def look() -> None:
        own = open_database(database_url)
        barrier.wait(10)
        found.extend(fan_outs.complete(own))
        own.close()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (completed,) = found
    assert completed.on_complete is not None
    followed = run_row(store, completed.on_complete)
    assert followed["params"] == {"text": f"52 of 57 after {context.run_id}", "failed": 2, "loud": False}
    assert followed["parent_id"] is None
    result = run_row(store, context.run_id)["result"]
    assert result["children"] == {"succeeded": 52, "failed": 2, "cancelled": 1, "missed": 1, "quarantined": 1}
    assert result["on_complete"] == {"run": completed.on_complete}
    assert fan_outs.complete(store) == ()


def test_a_walk_that_failed_is_followed_by_nothing(store: Database, context: DirectContext) -> None:
    """Its children count, but not all were queued; when it is retried and ends well, what follows comes after all."""
    context.stop_at_check = 3
    with pytest.raises(RunInterrupted):
        fan_out(context, on_complete={"job": "greet"})
    for child in children_of(store, context.run_id):
        set_state(store, child.id, "succeeded")
    set_state(store, context.run_id, "failed")
    (completed,) = fan_outs.complete(store)
    assert (completed.on_complete, completed.children) == (None, {"succeeded": 20})
    fan_out(context.next_attempt(), on_complete={"job": "greet"})
    for child in children_of(store, context.run_id):
        set_state(store, child.id, "succeeded")
    set_state(store, context.run_id, "succeeded")
    (completed,) = fan_outs.complete(store)
    assert completed.on_complete is not None
    assert completed.children == {"succeeded": _ROWS}


def test_nothing_to_do_is_complete_too(store: Database, context: DirectContext) -> None:
    """No row, no child; the fan-in queues what follows at its next look."""
    execute(context.database("app"), "DELETE FROM people")
    fan_out(context, on_complete={"job": "greet"})
    set_state(store, context.run_id, "succeeded")
    woken: list[bool] = []
    loop = FanIn(store, lambda: woken.append(True), SystemClock())
    loop.run_once(SystemClock().now())
    assert woken == [True]
    assert loop.run_once(SystemClock().now()) == timedelta(seconds=5)


def test_what_follows_may_be_there_already(store: Database, context: DirectContext) -> None:
    """A run of its unique key stands for it; else it gets what was written of tags, metadata and backoff."""
    follow = NewRun(
        kind="noop",
        unique_key="only",
        unique_period=timedelta(hours=1),
        tags=("after",),
        metadata={"by": "fan-out"},
        backoff={"delay_seconds": 2.0},
    )
    with context.children(on_complete=follow):
        pass
    set_state(store, context.run_id, "succeeded")
    (there,) = enqueue(store, [NewRun(kind="noop", unique_key="only")], created_by=CreatedBy.API)
    (completed,) = fan_outs.complete(store)
    assert (completed.on_complete, completed.error) == (there, None)
    execute(store, f"DELETE FROM batchd_runs WHERE id = {there}", "UPDATE batchd_fan_outs SET done_at = NULL")
    (completed,) = fan_outs.complete(store)
    assert completed.on_complete is not None
    run = run_row(store, completed.on_complete)
    assert (run["tags"], run["metadata"], run["retry"]["delay_seconds"]) == (["after"], {"by": "fan-out"}, 2.0)


def test_what_follows_and_cannot_be_queued_is_told(store: Database, context: DirectContext) -> None:
    """A job that was removed meanwhile: the fan-out is done, and its result says what is missing."""
    fan_out(context, on_complete={"job": "greet"})
    for child in children_of(store, context.run_id):
        set_state(store, child.id, "succeeded")
    set_state(store, context.run_id, "succeeded")
    execute(store, "UPDATE batchd_schedules SET removed_at = created_at WHERE id = 'greet'")
    (completed,) = fan_outs.complete(store)
    assert "greet" in str(completed.error)
    assert "greet" in run_row(store, context.run_id)["result"]["on_complete"]["error"]


def test_what_somebody_edited_into_nonsense_keeps_no_fan_out_open(store: Database, context: DirectContext) -> None:
    """Neither its own nor the others, for all are brought to their end together."""
    fan_out(context, run_per="batch", on_complete={"job": "greet"})
    execute(store, """UPDATE batchd_fan_outs SET on_complete = '{"nobody": 1}'""")
    execute(store, "UPDATE batchd_runs SET result = '[1]'")
    for child in children_of(store, context.run_id):
        set_state(store, child.id, "succeeded")
    set_state(store, context.run_id, "succeeded")
    (completed,) = fan_outs.complete(store)
    assert (completed.children, completed.on_complete) == ({"succeeded": 6}, None)
    assert "nobody" in str(completed.error)


def test_retention_keeps_the_runs_of_an_open_fan_out(store: Database, context: DirectContext) -> None:
    """They are what keeps a row from a second run; once all are final, they go as any other."""
    retention = Retention(keep_runs=1, keep_for=None, keep_events=timedelta(days=1))
    fan_out(context)
    children = children_of(store, context.run_id)
    for child in children[:-1]:
        set_state(store, child.id, "succeeded")
    prune(store, retention)
    assert len(children_of(store, context.run_id)) == _ROWS
    set_state(store, children[-1].id, "succeeded")
    set_state(store, context.run_id, "succeeded")
    fan_outs.complete(store)
    prune(store, retention)
    assert len(children_of(store, context.run_id)) == 1


def test_a_unique_key_lets_one_unfinished_run_through(store: Database) -> None:
    """Of twenty threads that queue the same one wins; when it is over the key is free again."""
    ids: list[int] = []
    barrier = threading.Barrier(20)

    def queue() -> None:
        barrier.wait(10)
        ids.extend(enqueue(store, [NewRun(kind="noop", unique_key="only")], created_by=CreatedBy.API))

    threads = [threading.Thread(target=queue) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ids) == 1
    set_state(store, ids[0], "succeeded")
    assert len(enqueue(store, [NewRun(kind="noop", unique_key="only")], created_by=CreatedBy.API)) == 1


def test_a_child_with_a_unique_key_is_queued_once_too(store: Database, context: DirectContext) -> None:
    """Added again, after it has ended and its unique key is free: there is one for its parent already."""
    with context.children() as children:
        wanted = [NewRun(kind="noop", key=key, unique_key=f"u{key}") for key in "ab"]
        assert children.add(wanted) == 2
        for child in children_of(store, context.run_id):
            set_state(store, child.id, "succeeded")
        assert children.add(wanted) == 0
        assert children.add([*wanted, NewRun(kind="noop", key="c", unique_key="ua")]) == 1


def test_long_keys_stay_apart(store: Database, context: DirectContext) -> None:
    """Keys that an index could not hold are cut and hashed."""
    long = ["x" * 5_000 + end for end in "abc"]
    with context.children() as children:
        assert children.add([NewRun(kind="noop", key=key) for key in long]) == 3
        assert children.add([NewRun(kind="noop", key=key) for key in long]) == 0
        with pytest.raises(JobError, match="`key` of its own"):
            children.add([NewRun(kind="noop")])
    assert len(child_key(long[0])) == 200


@pytest.mark.parametrize(("last", "follows"), [("succeeded", True), ("cancelled", False)])
def test_on_success_is_queued_when_all_of_them_succeeded(
    store: Database, context: DirectContext, last: str, follows: bool
) -> None:
    """Beside on_complete, which comes in any case."""
    fan_out(
        context, run_per="batch", on_complete={"job": "greet"}, on_success={"job": "greet", "params": {"text": "all"}}
    )
    children = children_of(store, context.run_id)
    for child in children:
        set_state(store, child.id, last if child is children[-1] else "succeeded")
    set_state(store, context.run_id, "succeeded")
    (completed,) = fan_outs.complete(store)
    assert completed.on_complete is not None
    assert (completed.on_success is not None) is follows
    if completed.on_success is not None:
        assert run_row(store, completed.on_success)["params"] == {"text": "all", "loud": False}
        assert run_row(store, completed.on_success)["after_id"] == context.run_id
