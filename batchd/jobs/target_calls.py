"""Calling a team's function with the rows of a batch: what it may return, and whose fault an error is."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from batchd.db.dialect import Failure
from batchd.db.engine import Database
from batchd.db.row_source import Row, RowSource
from batchd.domain.job import JsonValue
from batchd.domain.template import plain
from batchd.errors import (
    DatabaseUnavailable,
    JobError,
    LeaseLost,
    LockTimeout,
    StatementCancelled,
    TargetFailed,
    Verdict,
)
from batchd.jobs.batch import Batch
from batchd.jobs.contract import JobContext
from batchd.jobs.targets import Target
from batchd.store.rejects import Reject

_NOT_THE_ROWS = (DatabaseUnavailable, LockTimeout, StatementCancelled, LeaseLost, Verdict)
_CONNECTION_FAILURES = frozenset({Failure.UNAVAILABLE, Failure.LOCK_TIMEOUT, Failure.CANCELLED})


class TargetCalls:
    """Calls the target for batches, in any number of threads.

    With `rejects`, rows for which it raises are set aside instead of ending the run: a batch that fails is tried again
    in halves until the rows that are to blame stand alone. What the failed calls did in the batch's transaction is
    rolled back.
    """

    def __init__(
        self,
        context: JobContext,
        database: Database,
        source: RowSource,
        target: Target,
        arguments: Mapping[str, JsonValue],
        *,
        per_row: bool,
        rejects: bool,
    ) -> None:
        self._context = context
        self._database = database
        self._source = source
        self._target = target
        self._arguments = arguments
        self._per_row = per_row
        self._rejects = rejects

    def handle(self, batch: Batch) -> None:
        """Call the target with the rows of the batch, all at once or one by one; raises TargetFailed."""
        groups: Sequence[Sequence[Row]] = [[row] for row in batch.found] if self._per_row else [batch.found]
        for rows in groups:
            if rows:
                self._call(batch, rows)

    def _call(self, batch: Batch, rows: Sequence[Row]) -> None:
        try:
            with self._undone_on_error(batch):
                returned = self._target.call(
                    dict(rows[0].values) if self._per_row else [dict(row.values) for row in rows],
                    self._arguments,
                    connection=batch.open_connection,
                    context=self._context,
                )
        except Exception as error:
            if self._is_not_the_rows(error):
                raise
            if not self._rejects:
                raise self._failure(rows, error) from error
            self._set_aside(batch, rows, error)
            return
        self._count(batch, returned)

    def _set_aside(self, batch: Batch, rows: Sequence[Row], error: Exception) -> None:
        if len(rows) > 1:
            middle = len(rows) // 2
            self._call(batch, rows[:middle])
            self._call(batch, rows[middle:])
            return
        (row,) = rows
        batch.rejects.append(
            Reject(
                source=self._source.name,
                position=0,
                reason=_said(error),
                key=self._source.described(row.key),
                record=plain(row.values),
            )
        )

    def _undone_on_error(self, batch: Batch) -> contextlib.AbstractContextManager[Any]:
        if self._rejects and batch.open_connection is not None:
            return batch.open_connection.begin_nested()
        return contextlib.nullcontext()

    def _is_not_the_rows(self, error: Exception) -> bool:
        return isinstance(error, _NOT_THE_ROWS) or self._database.failure(error) in _CONNECTION_FAILURES

    def _failure(self, rows: Sequence[Row], error: Exception) -> TargetFailed:
        first, last = self._source.described(rows[0].key), self._source.described(rows[-1].key)
        which = first if len(rows) == 1 else f"one of the {len(rows)} rows from {first} to {last}"
        return TargetFailed(
            f"job {self._context.job}: {self._target.name} failed on {self._source.name}, {which}: {_said(error)}",
            hint=error.hint if isinstance(error, JobError) else None,
            retryable=error.retryable if isinstance(error, JobError) else True,
        )

    def _count(self, batch: Batch, returned: Any) -> None:
        if returned is None:
            return
        if not isinstance(returned, Mapping) or not all(_is_count(value) for value in returned.values()):
            raise JobError(
                f"{self._target.name} returned {type(returned).__name__}",
                hint="return nothing, or a dict of numbers, which are added up in the run's result",
                retryable=False,
            )
        for name, by in returned.items():
            batch.count(str(name), by)


def _is_count(value: object) -> bool:
    return isinstance(value, int | float)


def _said(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, JobError) else f"{type(error).__name__}: {said}" if said else type(error).__name__
