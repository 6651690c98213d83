"""How attempts end, whatever a kind does: each ending is one row that says so, and no thread is lost to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update

from batchd.clock import SystemClock
from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome, decide
from batchd.domain.run import RunState
from batchd.engine.finisher import Finisher
from batchd.engine.running import InHand
from batchd.errors import JobError, RunInterrupted, StopReason
from batchd.jobs.contract import JobContext
from batchd.store import claims, control
from batchd.store.claimed import ClaimRequest
from batchd.store.finish import Ending
from batchd.store.log_lines import LineBuffer, write
from batchd.store.migrate import migrate
from batchd.store.schema import log_lines, runs, workers
from tests.support.databases import open_database
from tests.support.engine_room import engine_room
from tests.support.store_reading import detail_of, wait_for_state
from tests.support.store_rows import add_run, run_row
from tests.support.waiting import wait_until

FINAL = tuple(state for state in RunState if state.is_final)
NOT_UTF8 = b"caf\xe9.csv".decode("utf-8", "surrogateescape")


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def store(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated store."""
    opened = open_database(request.getfixturevalue(request.param), is_store=True)
    migrate(opened)
    yield opened
    opened.close()


def queue(store: Database, work: str, **columns: Any) -> int:
    """Queue a run that is tried once."""
    run_id = add_run(store, **({"kind": work, "job": None, "max_attempts": 1} | columns))
    with store.writing() as connection:
        store.dialect.notify(connection, [Topic.RUNS])
    return run_id


def raising(error: BaseException) -> Callable[[JobContext], Any]:
    """Return a kind that raises the error."""

    def run(_context: JobContext) -> Any:
        raise error

    return run


def test_whatever_a_kind_raises_is_a_failed_attempt(store: Database) -> None:
    """SystemExit, Ctrl-C, no memory, a stop that nobody asked for: the thread lives on and the row says what it was."""
    errors = {
        "exit": SystemExit(3),
        "ctrl-c": KeyboardInterrupt(),
        "memory": MemoryError(),
        "recursion": RecursionError("too deep"),
        "generator": GeneratorExit(),
        "stop": RunInterrupted(StopReason.SHUTDOWN),
        "file": OSError(2, "No such file", NOT_UTF8),
        "nul": JobError("a \x00 in the middle"),
        "nan": JobError("slow", result={"seconds": float("nan"), "file": NOT_UTF8}),
    }
    with engine_room(store, {name: raising(error) for name, error in errors.items()}) as engine:
        found = {name: wait_for_state(store, queue(store, name), *FINAL) for name in errors}
        assert engine.is_alive
    assert {name: detail.run.state for name, detail in found.items()} == dict.fromkeys(errors, RunState.FAILED)
    assert {name: detail.attempts[0].error_type for name, detail in found.items()} == {
        name: type(error).__name__ for name, error in errors.items()
    }
    assert "\\udce9" in str(found["file"].run.error)
    assert found["nan"].run.result == {"seconds": "nan", "file": "caf\\udce9.csv"}


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"file": NOT_UTF8, "nul": "a\x00b", "deep": [{"x": None}]}, RunState.SUCCEEDED),
        ({"text": "x" * 3_000_000}, RunState.SUCCEEDED),
        (None, RunState.SUCCEEDED),
        ({"x": float("nan")}, RunState.FAILED),
        ({"x": object()}, RunState.FAILED),
        (["no object"], RunState.FAILED),
    ],
)
def test_a_result_is_kept_as_far_as_a_row_can_hold_it(store: Database, result: Any, state: RunState) -> None:
    """Work that is done is not failed for an odd text or for its size; what is not JSON is the kind's fault."""
    with engine_room(store, {"work": lambda _context: result}):
        found = wait_for_state(store, queue(store, "work"), *FINAL)
    assert found.run.state == state
    if isinstance(result, dict) and "file" in result:
        assert found.run.result == {"file": "caf\\udce9.csv", "nul": "ab", "deep": [{"x": None}]}
    elif isinstance(result, dict) and "text" in result:
        assert found.run.result is not None
        assert found.run.result["truncated"] is True


def test_odd_progress_does_no_harm(store: Database) -> None:
    """Neither texts nor numbers that a database refuses may disturb the leases of everybody."""

    def run(context: JobContext) -> dict[str, Any]:
        for _ in range(30):
            context.progress(2**70, 2**70, f"{NOT_UTF8}\x00")
            context.wait(timedelta(seconds=0.1))
        return {}

    with engine_room(store, {"work": run}) as engine:
        found = wait_for_state(store, queue(store, "work"), *FINAL)
        assert engine._keeper.failures == 0
    assert (found.run.state, found.run.progress_note) == (RunState.SUCCEEDED, "caf\\udce9.csv")


def test_a_line_that_the_store_refuses_holds_up_no_other(store: Database) -> None:
    """A run's odd log lines are stored as far as they can be."""
    run_id = add_run(store, job=None)
    buffer = LineBuffer()
    line = {"run_id": run_id, "ts": "2026-05-01T12:00:00Z", "level": "info", "event": "x", "msg": NOT_UTF8}
    buffer.add({**line, "ratio": float("nan"), "file": NOT_UTF8, "nul": "\x00"})
    buffer.add({**line, "msg": "after"})
    write(store, buffer.take())
    with store.reading() as connection:
        said = connection.execute(select(log_lines.c.message).order_by(log_lines.c.id)).scalars().all()
    assert said == ["caf\\udce9.csv", "after"]


NONSENSE = {
    "retry": {"retry": {"backoff": "fixed", "delay_seconds": 1.0, "max_delay_seconds": 9.9, "jitter": 1e300}},
    "delay": {"retry": {"backoff": "fixed", "delay_seconds": 1e300, "max_delay_seconds": 1e300, "jitter": 0}},
    "list": {"retry": ["x"]},
    "timeout": {"timeout_seconds": 1e300},
    "negative": {"timeout_seconds": -1.0},
    "attempts": {"max_attempts": -5},
    "params": {"params": ["not", "an", "object"]},
    "unknown": {"kind": "no such kind"},
}

EDITED = {
    "always": "available_at = '-infinity', scheduled_for = 'infinity'",
    "full fence": "fence = 9223372036854775807",
    "full attempt": "attempt = 2147483647",
}
"""What only the database can write. SQLite has no such moments, and its numbers have no such ends."""


def test_rows_of_nonsense_stop_nobody(store: Database) -> None:
    """Rows that somebody wrote by hand end somehow, each by itself, while the others run and every thread lives."""

    def fail(_context: JobContext) -> Any:
        raise ValueError("no")

    with engine_room(store, {"fail": fail, "work": lambda _context: {}}) as engine:
        odd = {name: queue(store, "fail", **({"priority": 9} | columns)) for name, columns in NONSENSE.items()}
        if store.dialect.name == "sqlite":
            for name, column, value in (("json", "params", "{"), ("text", "timeout_seconds", "soon")):
                odd[name] = queue(store, "fail", available_at=store.dialect.now_plus(3600))
                with store.writing() as connection:
                    connection.execute(text(f"UPDATE batchd_runs SET {column} = '{value}' WHERE id = {odd[name]}"))
                    connection.execute(
                        update(runs).where(runs.c.id == odd[name]).values(available_at=store.dialect.now())
                    )
        for name, change in EDITED.items():
            if store.dialect.name == "sqlite" and "infinity" in change:
                continue
            odd[name] = queue(store, "fail", available_at=store.dialect.now_plus(3600), priority=9)
            with store.writing() as connection:
                connection.execute(update(runs).where(runs.c.id == odd[name]).values(available_at=store.dialect.now()))
                connection.execute(text(f"UPDATE batchd_runs SET {change} WHERE id = {odd[name]}"))
        good = queue(store, "work")
        wait_for_state(store, good, RunState.SUCCEEDED)
        states = {}
        for name, run_id in odd.items():
            wait_until(lambda run_id=run_id: state_of(store, run_id) in FINAL, seconds=20, what=name)
            states[name] = state_of(store, run_id)
        assert engine.is_alive
        assert engine._dispatcher.failures == 0
    expected = dict.fromkeys(odd, RunState.FAILED) | dict.fromkeys(
        {"params", "timeout", "unknown", "json", "text"} & odd.keys(), RunState.QUARANTINED
    )
    if store.dialect.name == "postgresql":
        expected |= dict.fromkeys({"full fence", "full attempt"}, RunState.QUARANTINED)
    assert states == expected


def state_of(store: Database, run_id: int) -> RunState:
    """Return a run's state without reading the rest of its row."""
    with store.reading() as connection:
        return RunState(connection.execute(select(runs.c.state).where(runs.c.id == run_id)).scalar_one())


def test_a_run_that_ends_at_its_timeout_is_recorded_as_it_ended(store: Database) -> None:
    """The kind had finished when it was told: its result counts, whatever the clock says."""

    def work(context: JobContext) -> dict[str, Any]:
        try:
            context.wait(timedelta(seconds=30))
        except RunInterrupted:
            return {"done": True}
        return {}

    with engine_room(store, {"work": work}):
        found = wait_for_state(store, queue(store, "work", timeout_seconds=0.5), *FINAL)
    assert (found.run.state, found.run.result) == (RunState.SUCCEEDED, {"done": True})


def test_a_timed_out_attempt_is_a_failed_one_with_that_reason(store: Database) -> None:
    """It counts, it is retried while attempts are left, and the last one is final."""
    with engine_room(store, {"work": lambda context: context.wait(timedelta(seconds=30))}):
        run_id = queue(store, "work", timeout_seconds=0.3, max_attempts=2)
        found = wait_for_state(store, run_id, *FINAL)
    assert (found.run.state, found.run.reason, found.run.attempt) == (RunState.FAILED, "timeout", 2)
    assert [(attempt.outcome, attempt.error_type) for attempt in found.attempts] == [("timed_out", "Timeout")] * 2
    assert "0.3 s" in str(found.run.error)


def test_a_timeout_ends_the_statement_in_the_server(store: Database) -> None:
    """A job that waits for its database is not waited for."""
    endless = (
        "SELECT pg_sleep(60)"
        if store.dialect.name == "postgresql"
        else "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT max(n) FROM s"
    )

    def work(context: JobContext) -> dict[str, Any]:
        database = context.database("app")
        try:
            with context.reading(database) as connection:
                connection.execute(text(endless))
        except Exception as error:
            raise JobError("the table could not be read") from error  # a kind that makes its own of everything
        return {}

    with engine_room(store, {"work": work}, databases={"app": store}):
        began = time.monotonic()
        found = wait_for_state(store, queue(store, "work", timeout_seconds=0.5), *FINAL)
        assert time.monotonic() - began < 10
    assert (found.run.state, found.run.reason) == (RunState.FAILED, "timeout")
    if store.dialect.name == "postgresql":
        with store.reading() as connection:
            busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
            wait_until(lambda: connection.execute(text(busy)).scalar_one() == 0, what="the end of the statement")


def test_a_cancel_that_comes_while_an_attempt_fails_is_not_forgotten(store: Database) -> None:
    """The attempt fails with tries left, but somebody wants no more of it: cancelled, not queued again."""
    at_work, may_fail = threading.Event(), threading.Event()

    def work(_context: JobContext) -> Any:
        at_work.set()
        assert may_fail.wait(10)
        raise ValueError("no")

    with engine_room(store, {"work": work}):
        run_id = queue(store, "work", max_attempts=5)
        assert at_work.wait(10)
        control.request_cancel(store, run_id)
        may_fail.set()
        found = wait_for_state(store, run_id, *FINAL)
    assert found.run.state == RunState.CANCELLED
    assert run_row(store, run_id)["finished_at"] is not None


def test_a_cancelled_run_does_not_start_again_after_a_stop(store: Database) -> None:
    """A stop that comes before the attempt has heard of the request does not queue it for the next daemon."""
    at_work = threading.Event()

    def work(context: JobContext) -> Any:
        at_work.set()
        context.wait(timedelta(seconds=30))

    with engine_room(store, {"work": work}) as engine:
        run_id = queue(store, "work")
        assert at_work.wait(10)
        engine.drain()
        control.request_cancel(store, run_id)
    assert detail_of(store, run_id).run.state == RunState.CANCELLED


def test_a_run_that_hears_no_stop_is_given_back_and_spoils_the_engines_end(store: Database) -> None:
    """Another daemon may have begun it: this process must not wait for anything any more."""
    at_work, over = threading.Event(), threading.Event()

    def work(_context: JobContext) -> Any:
        at_work.set()
        over.wait(30)

    with engine_room(store, {"work": work}, grace_seconds=0.1, stops_cleanly=False) as engine:
        queue(store, "work")
        assert at_work.wait(10)
        engine.drain()
        assert not engine.stop(time.monotonic() + 10)
        over.set()


def test_a_stop_that_a_kind_wraps_is_still_a_stop(store: Database) -> None:
    """Its attempt is given back unused, not failed."""
    at_work = threading.Event()

    def work(context: JobContext) -> Any:
        at_work.set()
        try:
            context.wait(timedelta(seconds=30))
        except BaseException as error:
            raise JobError("could not go on") from error

    with engine_room(store, {"work": work}):
        run_id = queue(store, "work")
        assert at_work.wait(10)
    assert (detail_of(store, run_id).run.state, detail_of(store, run_id).run.attempt) == (RunState.QUEUED, 0)


def test_many_runs_past_their_start_deadline_hold_nobody_up(store: Database) -> None:
    """Two thousand of them are accounted for at once, and what waits behind them runs."""
    with store.writing() as connection:
        now = store.dialect.now()
        late = {
            "kind": "work",
            "queue": "default",
            "params": {},
            "retry": {},
            "state": "queued",
            "max_attempts": 1,
            "created_by": "schedule",
            "available_at": now,
            "created_at": now,
            "start_deadline_at": store.dialect.now_plus(-5),
        }
        connection.execute(runs.insert().values(**late), [{"priority": 9}] * 2_000)
    with engine_room(store, {"work": lambda _context: {}}):
        wait_for_state(store, queue(store, "work"), RunState.SUCCEEDED, seconds=20)
        with store.reading() as connection:
            states = connection.execute(select(runs.c.state).distinct()).scalars().all()
    assert sorted(states) == ["missed", "succeeded"]


def test_a_run_that_another_daemon_lost_goes_on_beside_the_attempt_that_hangs_here(store: Database) -> None:
    """An attempt that heeds no stop must not keep its own daemon from taking the run back from one that died since.

    Meanwhile somebody has deleted the daemon's own row: the next heartbeat writes it anew.
    """
    hung, begun = threading.Event(), []

    def run(_context: JobContext) -> dict[str, Any]:
        begun.append(len(begun))
        if len(begun) == 1:
            assert hung.wait(60)
        return {"time": len(begun)}

    with engine_room(store, {"work": run}, lease_seconds=2) as engine:
        run_id = queue(store, "work")
        wait_until(lambda: begun, what="the attempt that hangs")
        with store.writing() as connection:
            connection.execute(workers.delete())
            taken = {"fence": 2, "worker": "died", "lease_until": store.dialect.now_plus(-1)}
            connection.execute(update(runs).where(runs.c.id == run_id).values(taken))
        found = wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=30)
        assert found.run.result == {"time": 2}
        hung.set()
        wait_until(lambda: not engine.active(), what="the end of the attempt that hung")
        with store.reading() as connection:
            assert len(connection.execute(select(workers)).all()) == 1
    assert run_row(store, run_id)["fence"] == 3


def test_endings_of_a_storm_are_recorded_together(store: Database) -> None:
    """What ends while the threads have enough to go on with shares one transaction; the last one waits for nothing."""
    for _ in range(3):
        add_run(store, kind="noop", job=None)
    request = ClaimRequest("w1", 3, timedelta(seconds=30), {})
    succeeded = decide(AttemptOutcome.SUCCEEDED, attempt=1, max_attempts=1, retryable=True, delay=timedelta(0))
    endings = [Ending(claim, AttemptOutcome.SUCCEEDED, succeeded, {}, None) for claim in claims.claim(store, request)]
    recorded: list[int] = []

    def is_storm() -> bool:
        more = bool(endings)
        if more:
            finisher.add(endings.pop())
        return more

    clock = SystemClock()
    finisher = Finisher(store, InHand(clock), lambda batch: recorded.append(len(batch)), clock, is_storm=is_storm)
    finisher.add(endings.pop())
    finisher.run_once(clock.now())
    finisher.add(endings.pop())
    finisher.run_once(clock.now())
    assert recorded == [2, 1]
