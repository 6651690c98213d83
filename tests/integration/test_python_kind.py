"""The kind python: what a function gets, gives and decides, in a thread and in a process, on every database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.engine.pool import Engine
from batchd.jobs.kinds import each_row
from batchd.jobs.kinds.python import KIND
from batchd.jobs.processes.pool import pool
from batchd.store import control
from batchd.store.enqueue import NewRun, enqueue
from batchd.store.migrate import migrate
from batchd.store.queries import RunDetail
from tests.support.cleaning import execute, fetch
from tests.support.engine_room import engine_room
from tests.support.store_reading import detail_of, wait_for_state
from tests.support.store_rows import add_run, add_schedule
from tests.support.waiting import wait_until

_FINAL = tuple(state for state in RunState if state.is_final)
_TARGETS = "tests.support.python_targets"


@pytest.fixture(params=["thread", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Where the function runs."""
    return str(request.param)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """An engine that knows the kind, on a store that is the application's database as well."""
    migrate(database)
    execute(database, "CREATE TABLE effects (run bigint)", "CREATE TABLE numbers (n integer)")
    kinds = {"python": KIND, "each_row": each_row.KIND, "other": lambda _context: {}}
    with engine_room(database, kinds, databases={"app": database}) as engine:
        yield engine


@pytest.fixture(scope="module", autouse=True)
def processes() -> Iterator[None]:
    """The processes serve every test, and every store: that is what they are for."""
    yield
    pool().close()


def begin(store: Database, target: str, isolation: str, arguments: dict[str, Any], **params: Any) -> int:
    """Queue a run of the function and return its id."""
    run = {key: params.pop(key) for key in ("timeout", "max_attempts") if key in params}
    asked = {"target": f"{_TARGETS}:{target}", "isolation": isolation, "arguments": arguments, **params}
    (run_id,) = enqueue(store, [NewRun(kind="python", params=asked, **run)], created_by=CreatedBy.API)
    return run_id


def outcome(store: Database, target: str, isolation: str, arguments: dict[str, Any], **params: Any) -> RunDetail:
    """Run the function once and return how it ended."""
    run_id = begin(store, target, isolation, arguments, **{"max_attempts": 1, **params})
    return wait_for_state(store, run_id, *_FINAL, seconds=60)


def test_a_function_gets_its_arguments_as_its_annotations_say(
    database: Database, engine: Engine, isolation: str
) -> None:
    """JSON becomes dates, decimals and models; what it returns becomes JSON; an async one is awaited."""
    arguments = {"day": "2026-11-27", "amount": "5", "address": {"city": "Bonn"}, "json": "j", "_private": True}
    ended = outcome(database, "typed", isolation, arguments)
    assert ended.run.result == {"weekday": 5, "half": "2.5", "city": "Bonn", "json": "j", "private": True}
    assert outcome(database, "add", isolation, {"first": "41"}).run.result == {"value": 42}
    assert outcome(database, "later", isolation, {"value": 1}).run.result == {"value": 2}
    assert outcome(database, "anything", isolation, {"x": [1]}).run.result == {"x": [1]}


def test_arguments_that_do_not_fit_are_kept_for_a_person(database: Database, engine: Engine, isolation: str) -> None:
    """Nothing is called; the run says which argument is wrong, and not its value."""
    ended = outcome(database, "add", isolation, {"first": "hunter2", "third": 3})
    assert ended.run.state == RunState.QUARANTINED
    assert "arguments.first: Input should be a valid integer" in str(ended.run.error)
    assert "arguments.third: is no argument" in str(ended.run.error)
    assert "hunter2" not in str(ended.run.error)


def test_a_function_uses_its_context(database: Database, engine: Engine, isolation: str) -> None:
    """Checkpoint, log, record, enqueue, time left: the same in a thread and in a process."""
    ended = outcome(database, "with_context", isolation, {})
    result = dict(ended.run.result or {})
    assert (result.pop("pid") == os.getpid()) == (isolation == "thread")
    assert result == {
        "before": None,
        "recorded": None,
        "queued": 2,
        "again": 0,
        "attempt": 1,
        "previous": None,
        "time_left": True,
    }
    assert fetch(database, "SELECT run FROM effects") == [ended.run.id]
    assert fetch(database, "SELECT child_key FROM batchd_runs WHERE parent_id IS NOT NULL") == ["once"]


def test_only_a_job_has_a_watermark(database: Database, engine: Engine, isolation: str) -> None:
    """What a run without one leaves, no other run finds: neither one without a job nor a job named as the kind."""
    nothing = {"before": None, "after": None}
    assert outcome(database, "with_watermark", isolation, {}).run.result == nothing
    assert outcome(database, "with_watermark", isolation, {}).run.result == nothing
    params = {"target": f"{_TARGETS}:with_watermark", "isolation": isolation, "arguments": {}}
    add_schedule(database, "python", kind="python", params=params)
    before = None
    for _ in range(2):
        run_id = add_run(database, job="python", kind="python", params=params)
        engine.wake(frozenset({Topic.RUNS}))
        after = {"run": run_id}
        ended = wait_for_state(database, run_id, *_FINAL, seconds=60)
        assert ended.run.result == {"before": before, "after": after}
        before = after


def test_a_walk_commits_its_batches(database: Database, engine: Engine, isolation: str) -> None:
    """A walk's batches and checkpoints commit together wherever the function runs."""
    execute(database, "INSERT INTO numbers VALUES (1), (2), (3), (4), (5), (6), (7)")
    assert outcome(database, "walk", isolation, {}).run.result == {"value": 7}
    assert sorted(fetch(database, "SELECT run FROM effects")) == [1, 2, 3, 4, 5, 6, 7]


def test_an_error_is_kept_with_its_traceback(database: Database, engine: Engine, isolation: str) -> None:
    """Type, message and every frame of the team's own code stand in the attempt."""
    ended = outcome(database, "verdict", isolation, {"what": "fail"})
    assert ended.run.state == RunState.FAILED
    (attempt,) = ended.attempts
    assert (attempt.error_type, attempt.error_message) == ("LookupError", "nobody knows Bob")
    assert "in verdict" in str(attempt.error_traceback)
    assert "in _deeper" in str(attempt.error_traceback)
    refused = outcome(database, "verdict", isolation, {"what": "refuse"}, max_attempts=5)
    assert refused.run.state == RunState.FAILED
    assert refused.run.error == "cannot work (try the other door)"
    exited = outcome(database, "verdict", isolation, {"what": "exit"})
    assert exited.attempts[0].error_type == "SystemExit"
    assert outcome(database, "not_json", isolation, {}).run.state == RunState.FAILED


def test_a_job_decides_about_its_run(database: Database, engine: Engine, isolation: str) -> None:
    """Retry sets the wait, Snooze uses up no attempt, Discard ends the run without a failure."""
    discarded = outcome(database, "verdict", isolation, {"what": "discard"}, max_attempts=5)
    assert (discarded.run.state, discarded.run.reason) == (RunState.CANCELLED, "discarded")
    assert discarded.run.error == "the user is gone"
    snoozing = begin(database, "verdict", isolation, {"what": "snooze"}, max_attempts=1)
    retrying = begin(database, "verdict", isolation, {"what": "retry"}, max_attempts=2)
    for run_id in (snoozing, retrying):
        wait_until(
            lambda run_id=run_id: detail_of(database, run_id).run.reason, seconds=60, what=f"verdict of {run_id}"
        )
    snoozed, retried = detail_of(database, snoozing), detail_of(database, retrying)
    assert (snoozed.run.state, snoozed.run.reason, snoozed.run.attempt) == (RunState.QUEUED, "snoozed", 0)
    assert (snoozed.attempts[0].outcome, snoozed.attempts[0].error_message) == ("released", "not before noon")
    assert (retried.run.state, retried.run.reason, retried.run.attempt) == (RunState.QUEUED, "error", 1)
    assert "nobody knows Bob" in str(retried.attempts[0].error_traceback)
    for detail in (snoozed, retried):
        assert 3_500 < (detail.run.available_at - detail.attempts[0].started_at).total_seconds() < 3_700
    assert set(fetch(database, "SELECT event FROM batchd_outbox WHERE event LIKE 'run.%ed'")) >= {
        "run.discarded",
        "run.snoozed",
    }
    control.request_cancel(database, snoozing)
    assert detail_of(database, snoozing).run.state == RunState.CANCELLED


def test_functions_of_other_kinds_decide_too(database: Database, engine: Engine) -> None:
    """A function that each_row calls discards its run, also where rows that fail are set aside."""
    execute(database, "INSERT INTO numbers VALUES (1), (2)")
    params = {"database": "app", "table": "numbers", "key": ["n"], "on_error": "reject"}
    target = {"target": f"{_TARGETS}:discard_rows"}
    (run_id,) = enqueue(database, [NewRun(kind="each_row", params={**params, **target})], created_by=CreatedBy.API)
    ended = wait_for_state(database, run_id, *_FINAL, seconds=60)
    assert (ended.run.state, ended.run.reason) == (RunState.CANCELLED, "discarded")


@pytest.mark.parametrize("target", ["stop_while_walking", "wait_for_ever", "query_for_ever"])
def test_a_function_stops_when_it_is_cancelled(database: Database, engine: Engine, isolation: str, target: str) -> None:
    """Between two steps, in an await, in a statement; its progress is seen meanwhile."""
    run_id = begin(database, target, isolation, {})
    wait_for_state(database, run_id, RunState.RUNNING, seconds=60)
    wait_until(lambda: detail_of(database, run_id).run.progress_note == "at it", seconds=60, what="progress")
    control.request_cancel(database, run_id)
    assert wait_for_state(database, run_id, *_FINAL, seconds=60).run.state == RunState.CANCELLED


def test_a_target_that_cannot_be_called_fails_with_advice(database: Database, engine: Engine, isolation: str) -> None:
    """No module, no function, an annotation that cannot be read, a generator."""
    for target, said in (
        ("ad", "did you mean add"),
        ("unreadable", "the annotation of x cannot be read"),
        ("generator", "is a generator"),
    ):
        ended = outcome(database, target, isolation, {})
        assert ended.run.state == RunState.FAILED
        assert said in str(ended.run.error)
