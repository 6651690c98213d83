"""Doing what the list says, a step and a chunk at a time, each chunk one short transaction with its checkpoint.

Not one transaction for all: the first sync of a large table would hold its locks and an old snapshot for minutes, and
on SQLite keep every other writer out. What is lost is that others see the table change at once; a sync follows a source
that never stands still anyway. What is not lost is "exactly once": the checkpoint says which chunks are done, and each
statement compares again, so that a row is never written to what it is already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    and_,
    cast,
    delete,
    exists,
    func,
    insert,
    not_,
    select,
    tuple_,
    update,
)

from batchd.clock import SystemClock
from batchd.db.catalogue_facts import ColumnFacts
from batchd.db.chunk_size import ChunkSize
from batchd.db.engine import Database
from batchd.db.fitting import Fitting
from batchd.db.staging import POSITION, Misfit
from batchd.errors import JobError, LockTimeout, StatementCancelled
from batchd.jobs.contract import JobContext
from batchd.jobs.sync.compare import differs, is_marked, key_columns, mark_of, same_key, unmarked, value_columns
from batchd.jobs.sync.mapping import by_column
from batchd.jobs.sync.plan import STEP, SyncPlan
from batchd.jobs.sync.state import Step, SyncState
from batchd.store.rejects import Reject

_LARGEST_CHUNK = {"postgresql": 5_000, "sqlite": 1_000}
_SMALLEST_CHUNK = 50
_TARGET = timedelta(milliseconds=250)
_LOCK_TIMEOUT = timedelta(seconds=1)
_LOCK_TRIES = 8
_FIRST_LOCK_PAUSE = timedelta(milliseconds=100)
_CHUNKS_BETWEEN_THOROUGH_TIDIES = 20


class Writer:
    """For one attempt's thread."""

    def __init__(
        self,
        context: JobContext,
        database: Database,
        plan: SyncPlan,
        *,
        source: str,
        max_rejects: int,
        batch_size: int | None,
        pause: timedelta,
    ) -> None:
        largest = batch_size or _LARGEST_CHUNK[database.dialect.name]
        self._context = context
        self._database = database
        self._plan = plan
        self._source = source
        self._max_rejects = max_rejects
        self._pause = pause
        self._clock = SystemClock()
        self._size = ChunkSize(min(1_000, largest), min(_SMALLEST_CHUNK, largest), largest, _TARGET)
        self._chunks = 0

    def next_chunk(self, state: SyncState) -> SyncState | None:
        """Do the next chunk and return the state after it, or None when the list is done; tries again after a lock."""
        tries = 0
        while True:
            found = self._next_range(state)
            if found is None:
                return None
            step, last = found
            started = self._clock.monotonic()
            try:
                after = self._chunk(state, step, last)
            except (LockTimeout, StatementCancelled) as error:
                tries += 1
                self._size = self._size.halved()
                if tries == _LOCK_TRIES:
                    raise JobError(
                        f"rows of {self._plan.facts.written} stayed locked through {tries} tries: {error}",
                        hint="the next attempt goes on from here; look for a long transaction on the table",
                    ) from error
                self._context.wait(_FIRST_LOCK_PAUSE * 2 ** (tries - 1))
                continue
            self._size = self._size.after(timedelta(seconds=self._clock.monotonic() - started), self._size.rows)
            self._yield_to_others()
            return after

    def _next_range(self, state: SyncState) -> tuple[Step, int] | None:
        """Return the step and the last position of the next chunk."""
        todo = self._plan.todo.table
        step, position = todo.c[STEP], todo.c[POSITION]
        with self._context.reading(self._database) as connection:
            for each in Step:
                if each < state.step:
                    continue
                after = state.after if each == state.step else 0
                ahead = select(position).where(step == int(each), position > after).order_by(position)
                some = ahead.limit(self._size.rows).subquery()
                last = connection.execute(select(func.max(some.c[0]))).scalar_one()
                if last is not None:
                    return each, last
        return None

    def _chunk(self, state: SyncState, step: Step, last: int) -> SyncState:
        plan, todo = self._plan, self._plan.todo.table
        first = state.after if step == state.step else 0
        chunk = and_(todo.c[STEP] == int(step), todo.c[POSITION] > first, todo.c[POSITION] <= last)
        with self._context.writing(self._database) as connection:
            self._database.dialect.set_for_transaction(connection, lock_timeout=_LOCK_TIMEOUT)
            statement = self._statement(step, state.began_at)

            def move(condition: ColumnElement[bool]) -> int:
                made = statement(condition).execution_options(preserve_rowcount=True)
                return connection.execute(made).rowcount

            room = self._max_rejects - state.rejected
            fitted = Fitting(connection, self._database.dialect, plan.todo, [], move).run(
                most_misfits=max(0, room), within=chunk
            )
            rejects = [self._reject(connection, step, misfit) for misfit in fitted.misfits]
            self._context.keep_rejects(connection, self._database, rejects, before=state.kept)
            rows = connection.execute(select(func.count()).where(chunk)).scalar_one()
            after = _counted(state, step, sum(fitted.done), len(rejects))
            after = replace(after, step=int(step), after=last, done=state.done + rows)
            self._context.save_checkpoint(connection, self._database, after.as_json())
        return after

    def _statement(self, step: Step, moment: datetime) -> Callable[[ColumnElement[bool]], Any]:
        match step:
            case Step.REMOVE:
                return lambda chunk: self._removal(chunk, moment)
            case Step.CHANGE:
                return lambda chunk: self._change(chunk, moment)
            case Step.ADD:
                return lambda chunk: self._addition(chunk, moment)
            case Step.TOUCH:
                return lambda chunk: self._touch(chunk, moment)

    def _removal(self, chunk: ColumnElement[bool], moment: datetime) -> Any:
        plan, todo = self._plan, self._plan.todo.table
        named = select(*key_columns(plan, todo)).where(chunk)
        keys = key_columns(plan, plan.table)
        is_listed = (keys[0] if len(keys) == 1 else tuple_(*keys)).in_(named)
        if plan.on_missing == "delete":
            return delete(plan.table).where(is_listed, plan.scope)
        assert plan.missing_since is not None
        mark = {plan.missing_since.name: mark_of(plan, plan.missing_since, moment)}
        return update(plan.table).where(is_listed, plan.scope, not_(is_marked(plan))).values(mark)

    def _change(self, chunk: ColumnElement[bool], moment: datetime) -> Any:
        plan, todo = self._plan, self._plan.todo.table
        values: dict[str, Any] = {column.name: todo.c[column.name] for column in value_columns(plan)}
        if plan.missing_since is not None:
            values[plan.missing_since.name] = unmarked(plan, plan.missing_since)
        values |= self._moments(moment, plan.synced_at)
        return update(plan.table).where(same_key(plan, todo), chunk, differs(plan, todo)).values(values)

    def _addition(self, chunk: ColumnElement[bool], moment: datetime) -> Any:
        plan, todo = self._plan, self._plan.todo.table
        moments = self._moments(moment, plan.synced_at, plan.first_seen_at)
        names = [column.name for column in plan.fields.columns]
        chosen = select(*(todo.c[name] for name in names), *moments.values())
        chosen = chosen.where(chunk, not_(exists().where(same_key(plan, todo)))).order_by(todo.c[POSITION])
        return insert(plan.table).from_select([*names, *moments], chosen)

    def _touch(self, chunk: ColumnElement[bool], moment: datetime) -> Any:
        plan, todo = self._plan, self._plan.todo.table
        return update(plan.table).where(same_key(plan, todo), chunk).values(self._moments(moment, plan.synced_at))

    def _moments(self, moment: datetime, *columns: ColumnFacts | None) -> dict[str, Any]:
        return {column.name: mark_of(self._plan, column, moment) for column in columns if column is not None}

    def _reject(self, connection: Connection, step: Step, misfit: Misfit) -> Reject:
        """Return the row that the table did not take, by its columns: the record itself is gone."""
        todo, columns = self._plan.todo.table, [column.name for column in self._plan.fields.columns]
        row = connection.execute(
            select(*(cast(todo.c[name], Text) for name in columns)).where(
                todo.c[STEP] == int(step), todo.c[POSITION] == misfit.position
            )
        ).one()
        reason = f"not {'removed' if step is Step.REMOVE else 'written'}: {misfit.reason}"
        key = self._plan.fields.key_text(row)
        return Reject(self._source, misfit.position, reason, key, dict(by_column(columns, row)))

    def _yield_to_others(self) -> None:
        self._chunks += 1
        thoroughly = self._chunks % _CHUNKS_BETWEEN_THOROUGH_TIDIES == 0
        self._database.dialect.tidy(self._database.engine, thoroughly=thoroughly)
        if self._pause > timedelta(0):
            self._context.wait(self._pause)


def _counted(state: SyncState, step: Step, rows: int, rejected: int) -> SyncState:
    match step:
        case Step.REMOVE:
            state = replace(state, removed=state.removed + rows)
        case Step.CHANGE:
            state = replace(state, changed=state.changed + rows)
        case Step.ADD:
            state = replace(state, added=state.added + rows)
        case Step.TOUCH:
            state = replace(state, touched=state.touched + rows)
    return replace(state, rejected=state.rejected + rejected, kept=state.kept + rejected)
