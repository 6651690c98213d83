"""Runs that follow a run: what `then` says is queued in the transaction that records the success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Select, select, update
from sqlalchemy.exc import DataError, IntegrityError

from batchd.db.dialect import Dialect
from batchd.db.engine import Database, brief_message
from batchd.domain.follow import params_for
from batchd.domain.run import CreatedBy
from batchd.errors import JobError
from batchd.store import outbox
from batchd.store.enqueue import NewRun, enqueue_in
from batchd.store.schema import runs, schedules

Succeeded = tuple[int, str | None, Mapping[str, Any] | None]
"""A run that has just succeeded: its id, its job, its result."""


NOT_QUEUED = (
    JobError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    DataError,
    IntegrityError,
)
"""Why a run that is to follow cannot be queued: its job is gone, or somebody edited a row into nonsense."""


def why_not(error: Exception) -> str:
    """Return what one of `NOT_QUEUED` says, on one line, without SQL."""
    if isinstance(error, JobError):
        return error.message
    return f"{type(error).__name__}: {brief_message(error)}"


def queue_followers(connection: Connection, store: Database, succeeded: Sequence[Succeeded]) -> None:
    """Queue, in the caller's transaction, the run that each of these is followed by, if its job has a `then`.

    A follower that cannot be queued (its job left the config) is an error in the log and in the outbox; what succeeded
    has succeeded all the same.
    """
    jobs = sorted({job for _, job, _ in succeeded if job is not None})
    if not jobs:
        return
    rows = connection.execute(store.dialect.composed.once(_followed, store.dialect), {"ids": jobs}).all()
    followers = {row.id: row.then_run for row in rows}
    for run_id, job, result in succeeded:
        if job is not None and job in followers:
            _queue_one(connection, store, followers[job], run_id, job, result or {})


def _followed(dialect: Dialect) -> Select[Any]:
    these = select(schedules.c.id, schedules.c.then_run)
    return these.where(dialect.is_given(schedules.c.id, "ids"), schedules.c.then_run.is_not(None))


def note_origin(connection: Connection, run_ids: Sequence[int], after_id: int) -> None:
    """Write into the runs' rows which run they follow."""
    connection.execute(update(runs).where(runs.c.id.in_(run_ids)).values(after_id=after_id))


def _queue_one(
    connection: Connection,
    store: Database,
    then: Mapping[str, Any],
    run_id: int,
    job: str,
    result: Mapping[str, Any],
) -> None:
    try:
        new = NewRun(
            job=then["job"],
            params=params_for(then, {"run_id": run_id, "job": job, "result": result}),
            delay=timedelta(seconds=then["delay_seconds"]) if then.get("delay_seconds") else None,
        )
        with connection.begin_nested():  # what the database refuses of it must not undo the success
            ids = enqueue_in(connection, store, [new], created_by=CreatedBy.THEN)
    except NOT_QUEUED as error:
        said = why_not(error)
        from batchd.telemetry.logs import get_logger  # noqa: PLC0415 (the client imports this module, and never logs)

        log = get_logger(run_id=run_id, job=job)
        log.error("run.then_failed", reason=said)  # noqa: TRY400 (the reason says it all)
        outbox.add(connection, store, "run.then_failed", run_id, job, {"error": said})
        return
    note_origin(connection, ids, run_id)
