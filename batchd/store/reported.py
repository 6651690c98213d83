"""Runs that a script or a command outside the daemon executes and reports: a row, a lease, an ending.

They are `running` from their first moment, so no daemon ever claims one, and a reaper that finds such a lease expired
records the run as failed (reason `lost`) instead of queueing it again. Whoever comes back from a long silence and says
that it still runs, or how it ended, corrects that: it knows better.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from batchd.db.engine import Database
from batchd.domain.attempt import AttemptError, AttemptOutcome
from batchd.domain.job import CatchUp, JsonObject, Overlap
from batchd.domain.run import EXTERNAL_KIND, CreatedBy, Reason, RunState
from batchd.errors import UsageError
from batchd.store import outbox
from batchd.store.followers import queue_followers
from batchd.store.leases import Progress
from batchd.store.schedules import REPORTED
from batchd.store.schema import attempts, runs, schedules

LEASE = timedelta(seconds=30)
HEARTBEAT = timedelta(seconds=10)

_FENCE = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_OUTCOMES = {
    RunState.SUCCEEDED: AttemptOutcome.SUCCEEDED,
    RunState.FAILED: AttemptOutcome.FAILED,
    RunState.CANCELLED: AttemptOutcome.CANCELLED,
}


class JobRunsHere(UsageError):
    """A run is reported under the name of a job that the daemon itself runs."""


@dataclass(frozen=True, slots=True)
class ReportedEnd:
    """How a reported run ended: `succeeded`, `failed` or `cancelled`."""

    state: RunState
    error: AttemptError | None
    result: JsonObject


@dataclass(frozen=True, slots=True)
class Heard:
    """What a heartbeat learned: whether the run is still on record as running, and whether somebody wants it to end."""

    is_running: bool
    cancel_requested: bool


def begin(store: Database, job: str, params: JsonObject, worker: str, began_ago: timedelta) -> int:
    """Record that a run of the job has begun so long ago, and return its id. One transaction.

    `worker` stands for this one run: asked again, as when the answer to the first commit got lost, it is the same run.
    A job that the store does not know becomes known. Raises JobRunsHere for one of another kind, and UsageError for a
    name that the config would not take either.
    """
    if not _NAME.fullmatch(job):
        raise UsageError(
            f"{job!r} is no name for a job", hint="letters, digits, dots, dashes and underscores, up to 100"
        )
    dialect = store.dialect
    with store.writing() as connection:
        _make_known(connection, store, job)
        begun = _begun(connection, store, worker)
        if begun is not None:
            return begun
        row = connection.execute(
            runs.insert()
            .values(
                schedule_id=job,
                kind=EXTERNAL_KIND,
                queue=EXTERNAL_KIND,
                priority=0,
                params=params,
                available_at=dialect.now(),
                created_at=dialect.now(),
                started_at=dialect.now_plus(-began_ago.total_seconds()),
                state=RunState.RUNNING.value,
                lease_until=dialect.now_plus(LEASE.total_seconds()),
                worker=worker,
                attempt=1,
                max_attempts=1,
                fence=_FENCE,
                retry={},
                created_by=CreatedBy.MONITOR.value,
            )
            .returning(runs.c.id, runs.c.schedule_id, runs.c.kind, runs.c.queue, runs.c.attempt, runs.c.started_at)
        ).one()
        connection.execute(
            attempts.insert().values(run_id=row.id, fence=_FENCE, number=1, worker=worker, started_at=row.started_at)
        )
        outbox.add_started(connection, store, [row])
        return int(row.id)


def beat(store: Database, run_id: int) -> Heard:
    """Say that the run still runs, and hear whether somebody wants it to end."""
    with store.writing() as connection:
        row = connection.execute(
            update(runs)
            .where(_is_mine(run_id))
            .values(
                state=RunState.RUNNING.value,
                lease_until=store.dialect.now_plus(LEASE.total_seconds()),
                reason=None,
                error=None,
                finished_at=None,
            )
            .returning(runs.c.cancel_requested_at)
        ).one_or_none()
        if row is None:
            return Heard(is_running=False, cancel_requested=False)
        connection.execute(
            update(attempts)
            .where(attempts.c.run_id == run_id, attempts.c.outcome == AttemptOutcome.LOST.value)
            .values(outcome=None, finished_at=None)
        )
        return Heard(is_running=True, cancel_requested=row.cancel_requested_at is not None)


def finish(store: Database, run_id: int, end: ReportedEnd, progress: Progress | None) -> bool:
    """Record how the run ended, and queue what follows it; return False when it has another ending already."""
    error = end.error
    reached: dict[str, Any] = {}
    if progress is not None:
        reached = {"done": progress.done, "total": progress.total, "note": progress.note}
    with store.writing() as connection:
        row = connection.execute(
            update(runs)
            .where(_is_mine(run_id))
            .values(
                state=end.state.value,
                reason=_reason(end),
                error=error and error.message,
                result=end.result,
                lease_until=None,
                losses=0,
                cancel_requested_at=None,
                finished_at=store.dialect.now(),
                **{f"progress_{name}": value for name, value in reached.items()},
            )
            .returning(runs.c.schedule_id)
        ).one_or_none()
        if row is None:
            return False
        connection.execute(
            update(attempts)
            .where(attempts.c.run_id == run_id)
            .values(
                outcome=_OUTCOMES[end.state].value,
                finished_at=store.dialect.now(),
                error_type=error and error.type,
                error_message=error and error.message,
                error_traceback=error and error.traceback,
            )
        )
        outbox.add(connection, store, *_notice(run_id, row.schedule_id, end))
        if end.state is RunState.SUCCEEDED:
            queue_followers(connection, store, [(run_id, row.schedule_id, end.result)])
    return True


def _begun(connection: Connection, store: Database, worker: str) -> int | None:
    """Return the run that the worker has begun already, its lease renewed."""
    is_ours = and_(runs.c.state == RunState.RUNNING.value, runs.c.kind == EXTERNAL_KIND, runs.c.worker == worker)
    renewed = update(runs).where(is_ours).values(lease_until=store.dialect.now_plus(LEASE.total_seconds()))
    run_id: int | None = connection.execute(renewed.returning(runs.c.id)).scalar_one_or_none()
    return run_id


def _make_known(connection: Connection, store: Database, job: str) -> None:
    now = store.dialect.now()
    statement = store.dialect.insert(schedules).values(
        id=job,
        kind=EXTERNAL_KIND,
        schedule=None,
        timezone="UTC",
        queue=EXTERNAL_KIND,
        priority=0,
        params={},
        enabled=True,
        catch_up=CatchUp.SKIP.value,
        catch_up_max_runs=1,
        catch_up_max_age_seconds=0.0,
        overlap=Overlap.ALLOW.value,
        jitter_seconds=0.0,
        max_attempts=1,
        retry={},
        definition_hash=REPORTED,
        created_at=now,
        updated_at=now,
    )
    back = {"removed_at": None, "definition_hash": REPORTED, "updated_at": now}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[schedules.c.id],
            set_=back,
            where=and_(schedules.c.kind == EXTERNAL_KIND, schedules.c.removed_at.is_not(None)),
        )
    )
    kind = connection.execute(select(schedules.c.kind).where(schedules.c.id == job)).scalar_one()
    if kind != EXTERNAL_KIND:
        raise JobRunsHere(
            f"job {job!r} is of kind {kind}, which batchd runs itself", hint="report the run under another name"
        )


def _is_mine(run_id: int) -> ColumnElement[bool]:
    is_lost = and_(runs.c.state == RunState.FAILED.value, runs.c.reason == Reason.LOST.value)
    return and_(runs.c.id == run_id, or_(runs.c.state == RunState.RUNNING.value, is_lost))


def _reason(end: ReportedEnd) -> str | None:
    match end.state:
        case RunState.FAILED:
            return Reason.ERROR.value
        case RunState.CANCELLED:
            return Reason.REQUESTED.value
    return None


def _notice(run_id: int, job: str, end: ReportedEnd) -> tuple[str, int, str, JsonObject]:
    event = "run.cancelled" if end.state is RunState.CANCELLED else "run.finished"
    facts: JsonObject = {
        "state": end.state.value,
        "reason": _reason(end),
        "kind": EXTERNAL_KIND,
        "queue": EXTERNAL_KIND,
        "attempt": 1,
        "error": None if end.error is None else end.error.message,
    }
    return event, run_id, job, facts
