"""What a person may ask the daemon to do, as writes to the store: one path, whether one daemon runs, five or none.

Each function is one short transaction that commits the change, its outbox row and the wake of whoever must act on it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update
from sqlalchemy.exc import IntegrityError

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.job import JsonValue, Overlap
from batchd.domain.queue import resolved_key
from batchd.domain.run import EXTERNAL_KIND, RETRYABLE_BY_HAND, CreatedBy, Reason, RunState
from batchd.domain.run_request import require_storable
from batchd.errors import UsageError
from batchd.store import audit, outbox
from batchd.store.audit import Actor
from batchd.store.schema import runs, schedules

_TEMPLATE = ("kind", "queue", "priority", "timeout_seconds", "max_attempts", "retry", "mutex")
"""What a run has from its job as it stands."""


OF_ENDED = (
    "reason",
    "finished_at",
    "error",
    "result",
    "cancel_requested_at",
    "start_deadline_at",
    "worker",
    "waits_for",
)
"""What a run that is queued again has no more."""


class Cancelled(enum.StrEnum):
    """What a request to cancel came to."""

    AT_ONCE = "cancelled"
    REQUESTED = "requested"


class JobUnknown(UsageError):
    """The store knows no job of that name (or the config no longer has it)."""


class RunUnknown(UsageError):
    """The store has no run of that id."""


class NotPossible(UsageError):
    """The run is in a state in which this cannot be done."""


def trigger(
    database: Database,
    job: str,
    overrides: Mapping[str, JsonValue],
    *,
    created_by: CreatedBy,
    by: Actor | None = None,
) -> int:
    """Queue a run of the job now and return the run's id; see `trigger_in`."""
    with database.writing() as connection:
        return trigger_in(connection, database, job, overrides, created_by=created_by, by=by)


def trigger_in(
    connection: Connection,
    database: Database,
    job: str,
    overrides: Mapping[str, JsonValue],
    *,
    created_by: CreatedBy,
    by: Actor | None = None,
) -> int:
    """Queue a run of the job now and return the run's id.

    Queue, priority, timeout and retries are the job's; `overrides` replace single params and must be valid already. A
    paused or disabled job runs too: somebody asked for it. Unless the job's overlap policy is `allow`, the run waits
    for the job's running one. `by` is who asked, for the audit record.
    """
    row = _job(connection, job)
    if row["kind"] == EXTERNAL_KIND:
        raise NotPossible(
            f"job {job!r} runs elsewhere and is only reported to batchd", hint="start its script, where it is"
        )
    if overrides:
        require_storable(overrides)
    now = database.dialect.now()
    params = {**row["params"], **overrides}
    alone = row["overlap"] != Overlap.ALLOW.value
    values = {
        **{name: row[name] for name in _TEMPLATE},
        "limit_key": resolved_key(row["limit_key"], params),
        "schedule_id": job,
        "params": params,
        "available_at": now,
        "created_at": now,
        "state": RunState.QUEUED.value,
        "concurrency_key": job if alone else None,
        "created_by": created_by.value,
    }
    run_id: int = connection.execute(insert(runs).values(values).returning(runs.c.id)).scalar_one()
    database.dialect.notify(connection, [Topic.RUNS])
    detail = {"params": sorted(overrides)} if overrides else None
    audit.add(connection, database, by, "trigger", job=job, run_id=run_id, detail=detail)
    return run_id


def pause(database: Database, job: str, *, by: Actor | None = None) -> bool:
    """Stop planning the job's fires until `resume`; return False when it was paused already."""
    return _set_paused(database, job, paused=True, by=by)


def resume(database: Database, job: str, *, by: Actor | None = None) -> bool:
    """Plan the job's fires again, what passed meanwhile by its catch-up policy; return False when it was not paused."""
    return _set_paused(database, job, paused=False, by=by)


def request_cancel(database: Database, run_id: int, *, by: Actor | None = None) -> Cancelled:
    """Cancel a queued run at once, or ask the daemon that runs it to stop it; raises NotPossible for a finished run."""
    with database.writing() as connection:
        row = _locked_run(connection, run_id)
        now = database.dialect.now()
        audit.add(connection, database, by, "cancel", job=row["schedule_id"], run_id=run_id)
        match RunState(row["state"]):
            case RunState.QUEUED:
                connection.execute(
                    update(runs)
                    .where(runs.c.id == run_id)
                    .values(
                        state=RunState.CANCELLED.value,
                        reason=Reason.REQUESTED.value,
                        finished_at=now,
                        cancel_requested_at=now,
                    )
                )
                facts = {"state": RunState.CANCELLED.value, "reason": Reason.REQUESTED.value}
                _tell(connection, database, "run.cancelled", row, facts)
                return Cancelled.AT_ONCE
            case RunState.RUNNING:
                if row["cancel_requested_at"] is None:
                    connection.execute(update(runs).where(runs.c.id == run_id).values(cancel_requested_at=now))
                database.dialect.notify(connection, [Topic.CANCEL])
                return Cancelled.REQUESTED
            case state:
                raise NotPossible(
                    f"run {run_id} is {state.value} already", hint="only unfinished runs can be cancelled"
                )


def retry(database: Database, run_id: int, *, created_by: CreatedBy, by: Actor | None = None) -> None:
    """Queue a finished run again, the same row, with as many attempts as its job gives a new run.

    Raises NotPossible for a run that is unfinished or succeeded, and when its job is gone from the config.
    """
    with database.writing() as connection:
        row = _locked_run(connection, run_id)
        state = RunState(row["state"])
        if state not in RETRYABLE_BY_HAND:
            wanted = ", ".join(sorted(RETRYABLE_BY_HAND))
            hint = f"only these can be retried: {wanted}"
            if row["schedule_id"] is not None:
                hint += f"; `batchd trigger {row['schedule_id']}` starts a new run"
            raise NotPossible(f"run {run_id} is {state.value}", hint=hint)
        if row["kind"] == EXTERNAL_KIND:
            raise NotPossible(
                f"run {run_id} was only reported to batchd, which cannot run it",
                hint="run its script again, where it is",
            )
        budget = row["max_attempts"] - row["attempt"] if row["max_attempts"] > row["attempt"] else row["max_attempts"]
        if row["schedule_id"] is not None:
            budget = _job(connection, row["schedule_id"])["max_attempts"]
        try:
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(
                    **dict.fromkeys(OF_ENDED),
                    state=RunState.QUEUED.value,
                    available_at=database.dialect.now(),
                    max_attempts=runs.c.attempt + budget,
                    losses=0,
                )
            )
        except IntegrityError as error:
            raise NotPossible(
                f"run {run_id} cannot be retried: an unfinished run does the same work",
                hint="wait for it; `batchd runs --state queued --state running` lists it",
            ) from error
        audit.add(connection, database, by, "retry", job=row["schedule_id"], run_id=run_id)
        facts = {"state": RunState.QUEUED.value, "requested_by": created_by.value}
        _tell(connection, database, "run.retrying", row, facts)
        database.dialect.notify(connection, [Topic.RUNS])


def _set_paused(database: Database, job: str, *, paused: bool, by: Actor | None) -> bool:
    with database.writing() as connection:
        _job(connection, job)
        now = database.dialect.now()
        changed = connection.execute(
            update(schedules)
            .where(
                schedules.c.id == job, schedules.c.paused_at.is_(None) if paused else schedules.c.paused_at.is_not(None)
            )
            .values(paused_at=now if paused else None, updated_at=now)
        )
        if changed.rowcount:
            audit.add(connection, database, by, "pause" if paused else "resume", job=job)
        database.dialect.notify(connection, [Topic.SCHEDULES])
        return changed.rowcount == 1


def _job(connection: Connection, job: str) -> RowMapping:
    statement = select(schedules).where(schedules.c.id == job)
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise JobUnknown(
            f"the store knows no job {job!r}",
            hint="a job of the config reaches the store when the daemon starts: run `batchd run` (or restart it) once",
        )
    if row["removed_at"] is not None:
        raise JobUnknown(
            f"job {job!r} was removed from the config", hint="put it back into the config and restart the daemon"
        )
    return row


def _locked_run(connection: Connection, run_id: int) -> RowMapping:
    statement = select(runs).where(runs.c.id == run_id).with_for_update()
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise RunUnknown(f"there is no run {run_id}", hint="`batchd runs` lists the newest ones; old ones are pruned")
    return row


def _tell(connection: Connection, database: Database, event: str, row: RowMapping, facts: Mapping[str, Any]) -> None:
    payload = {"job": row["schedule_id"] or row["kind"], "attempt": row["attempt"], **facts}
    outbox.add(connection, database, event, row["id"], row["schedule_id"], payload)
