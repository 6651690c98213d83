"""Runs that queue runs: which of them are open, and what is queued once when all of a run's children are final.

    begin ──► children are queued ──► close ──► … ──► the last child is final ──► complete: counts, `on_complete`

`complete` looks at the children's rows and nothing else, so it does not matter how a child became final: executed,
cancelled by hand, missed, quarantined, or by somebody with psql.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, update

from batchd.db.engine import Database
from batchd.domain.job import JsonObject, JsonValue
from batchd.domain.run import UNFINISHED, CreatedBy, RunState
from batchd.domain.template import filled
from batchd.store import outbox
from batchd.store.enqueue import NewRun, enqueue_each
from batchd.store.followers import NOT_QUEUED, note_origin, why_not
from batchd.store.schema import fan_outs, runs

_AT_ONCE = 50
_UNFINISHED = [state.value for state in sorted(UNFINISHED)]


@dataclass(frozen=True, slots=True)
class Completed:
    """A fan-out that came to its end. `on_complete` and `on_success` are the runs that were queued then.

    `error` says why one of them could not be.
    """

    run_id: int
    children: Mapping[str, int]
    on_complete: int | None
    error: str | None
    on_success: int | None = None


def begin(store: Database, run_id: int, on_complete: NewRun | None, on_success: NewRun | None = None) -> None:
    """Say that the run is going to queue runs; a later attempt of it says so again."""
    with store.writing() as connection:
        begin_in(connection, store, run_id, on_complete, on_success)


def begin_in(
    connection: Connection, store: Database, run_id: int, on_complete: NewRun | None, on_success: NewRun | None
) -> None:
    """Say that the run is going to queue runs, in the caller's transaction."""
    statement = store.dialect.insert(fan_outs).values(
        run_id=run_id,
        on_complete=None if on_complete is None else _spec_of(on_complete),
        on_success=None if on_success is None else _spec_of(on_success),
        created_at=store.dialect.now(),
        closed_at=None,
        done_at=None,
    )
    again = {name: statement.excluded[name] for name in ("on_complete", "on_success")}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[fan_outs.c.run_id],
            set_={**again, "done_at": None},
            where=fan_outs.c.closed_at.is_(None),
        )
    )


def close(store: Database, run_id: int) -> None:
    """Say that all children of the run are queued."""
    with store.writing() as connection:
        close_in(connection, store, run_id)


def close_in(connection: Connection, store: Database, run_id: int) -> None:
    """Say that all children of the run are queued, in the caller's transaction."""
    connection.execute(
        update(fan_outs)
        .where(fan_outs.c.run_id == run_id, fan_outs.c.closed_at.is_(None))
        .values(closed_at=store.dialect.now())
    )


def count_children(connection: Connection, run_id: int) -> dict[str, int]:
    """Return how many children of the run are in each state; empty when it has none."""
    counted = connection.execute(
        select(runs.c.state, func.count()).where(runs.c.parent_id == run_id).group_by(runs.c.state)
    )
    return {row[0]: row[1] for row in counted}


def has_open(store: Database) -> bool:
    """Return whether a fan-out is not done yet."""
    with store.reading() as connection:
        return (
            connection.execute(select(fan_outs.c.run_id).where(fan_outs.c.done_at.is_(None)).limit(1)).first()
            is not None
        )


def complete(store: Database) -> tuple[Completed, ...]:
    """Bring the fan-outs to their end whose run and children are all final; one transaction, each of them once.

    The counts go into the run's result. `on_complete` is queued when the run had queued all its children.
    """
    child = runs.alias("child")
    has_unfinished = (
        select(child.c.id).where(child.c.parent_id == fan_outs.c.run_id, child.c.state.in_(_UNFINISHED)).exists()
    )
    statement = (
        select(
            fan_outs.c.run_id,
            fan_outs.c.on_complete,
            fan_outs.c.on_success,
            fan_outs.c.closed_at,
            runs.c.schedule_id,
            runs.c.state,
            runs.c.result,
        )
        .join(runs, runs.c.id == fan_outs.c.run_id)
        .where(fan_outs.c.done_at.is_(None), runs.c.state.not_in(_UNFINISHED), ~has_unfinished)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    with store.reading() as connection:
        if connection.execute(statement.with_only_columns(fan_outs.c.run_id)).first() is None:
            return ()
    with store.writing() as connection:
        return tuple(_complete_one(connection, store, row) for row in connection.execute(statement).all())


def _complete_one(connection: Connection, store: Database, row: Any) -> Completed:
    children = count_children(connection, row.run_id)
    has_succeeded = {row.state, *children} == {RunState.SUCCEEDED.value}
    wanted = {"on_complete": row.on_complete, "on_success": row.on_success if has_succeeded else None}
    queued: dict[str, int] = {}
    outcome: JsonObject = {}
    error = None
    for name, spec in wanted.items():
        if row.closed_at is None or spec is None:
            continue
        try:
            with connection.begin_nested():  # what the database refuses of it must not keep the fan-out open
                queued[name] = _queue_next(connection, store, _run_of(spec, row.run_id, children), row.run_id)
            outcome[name] = {"run": queued[name]}
        except NOT_QUEUED as problem:
            error = why_not(problem)
            outcome[name] = {"error": error}
    connection.execute(
        update(fan_outs)
        .where(fan_outs.c.run_id == row.run_id)
        .values(
            done_at=store.dialect.now(),
            on_complete_run_id=queued.get("on_complete"),
            on_success_run_id=queued.get("on_success"),
        )
    )
    result: JsonObject = {**(row.result if isinstance(row.result, dict) else {}), "children": dict(children), **outcome}
    connection.execute(update(runs).where(runs.c.id == row.run_id).values(result=result))
    facts: dict[str, Any] = {f"{name}_run_id": queued.get(name) for name in wanted}
    facts |= {"children": dict(children), "error": error}
    outbox.add(connection, store, "run.children_finished", row.run_id, row.schedule_id, facts)
    return Completed(row.run_id, children, queued.get("on_complete"), error, queued.get("on_success"))


def _queue_next(connection: Connection, store: Database, run: NewRun, after_id: int) -> int:
    (enqueued,) = enqueue_each(connection, store, [run], created_by=CreatedBy.JOB)
    note_origin(connection, [enqueued.id], after_id)
    return enqueued.id


def _spec_of(run: NewRun) -> JsonObject:
    spec: dict[str, Any] = {key: value for key, value in dataclasses.asdict(run).items() if value not in (None, {}, ())}
    spec |= {name: value.total_seconds() for name, value in spec.items() if isinstance(value, timedelta)}
    if run.available_at is not None:
        spec["available_at"] = run.available_at.isoformat()
    return spec


def _run_of(spec: JsonObject, run_id: int, children: Mapping[str, int]) -> NewRun:
    known: dict[str, Any] = dict(spec)
    for name in ("timeout", "delay", "unique_period"):
        if name in known:
            known[name] = timedelta(seconds=known[name])
    if "available_at" in known:
        known["available_at"] = datetime.fromisoformat(known["available_at"])
    facts: dict[str, JsonValue] = {state.value: children.get(state.value, 0) for state in RunState if state.is_final}
    facts |= {"run_id": run_id, "children": sum(children.values())}
    known["params"] = filled(known.get("params", {}), facts)
    return NewRun(**known)
