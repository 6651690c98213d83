"""The schedules: the config's jobs as rows, brought in line at each start.

A row that did not change is not touched, so its `next_run_at` survives restarts and what was missed meanwhile is seen.
A job that left the config keeps its row and its runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.job import JobDefinition
from batchd.domain.run import Reason, RunState
from batchd.domain.schedule import ScheduleError, parse_schedule
from batchd.store import outbox
from batchd.store.planning import give_up_due
from batchd.store.schema import runs, schedules

_LOCK = "reconcile"
_CHUNK = 1_000

REPORTED = "reported"
"""The `definition_hash` of a job that the config does not have, and whose runs somebody reports."""


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """How many jobs were added, changed, removed and left alone; `invalid` names those that cannot be planned."""

    added: int
    changed: int
    removed: int
    unchanged: int
    invalid: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Differences:
    added: list[JobDefinition]
    retimed: list[JobDefinition]
    edited: list[JobDefinition]
    removed: list[str]
    unchanged: int


def reconcile(database: Database, definitions: Sequence[JobDefinition], now: datetime) -> ReconcileReport:
    """Bring the rows in line with the config's jobs, all in one transaction under a lock, and say what changed.

    `next_run_at` becomes the first fire after `now` for a new job, for one that came back, and where the schedule, the
    time zone or `enabled` changed, or where somebody emptied it; fires of the old schedule that were still due become
    one `missed` row.
    """
    with database.writing() as connection:
        database.dialect.lock_for_transaction(connection, _LOCK)
        found = _compare(connection, definitions, now)
        new_rows = [_row(job) | _timing(job, now) for job in found.added]
        retimed_rows = [_row(job) | _timing(job, now) for job in found.retimed]
        stamp = {"updated_at": database.dialect.now()}
        if new_rows:
            connection.execute(schedules.insert().values(created_at=database.dialect.now(), **stamp), new_rows)
        if found.retimed:
            give_up_due(connection, database, [job.name for job in found.retimed], now)
        _update(connection, retimed_rows, stamp | {"removed_at": None})
        _update(connection, [_row(job) for job in found.edited], stamp)
        for start in range(0, len(found.removed), _CHUNK):
            _remove(connection, database, found.removed[start : start + _CHUNK])
        if found.added or found.retimed or found.edited or found.removed:
            database.dialect.notify(connection, [Topic.SCHEDULES])
    return ReconcileReport(
        added=len(found.added),
        changed=len(found.retimed) + len(found.edited),
        removed=len(found.removed),
        unchanged=found.unchanged,
        invalid=tuple(row["id"] for row in new_rows + retimed_rows if row["error"] is not None),
    )


def definition_hash(database: Database, job: str) -> str | None:
    """Return the hash of the job as the config that was last taken over has it; None for a job that it has not."""
    statement = select(schedules.c.definition_hash).where(schedules.c.id == job, schedules.c.removed_at.is_(None))
    with database.reading() as connection:
        return connection.execute(statement).scalar_one_or_none()


def next_runs(database: Database, jobs: Collection[str]) -> dict[str, datetime | None]:
    """Return when each of the jobs fires next; None for one that only a trigger runs."""
    statement = select(schedules.c.id, schedules.c.next_run_at)
    with database.reading() as connection:
        found = connection.execute(statement.where(database.dialect.is_among(schedules.c.id, sorted(jobs)))).all()
    return {row.id: row.next_run_at for row in found}


def _compare(connection: Connection, definitions: Sequence[JobDefinition], now: datetime) -> _Differences:
    columns = schedules.c
    statement = select(
        columns.id,
        columns.definition_hash,
        columns.schedule,
        columns.timezone,
        columns.enabled,
        columns.next_run_at,
        columns.removed_at,
        columns.error,
    )
    stored = {row.id: row for row in connection.execute(statement)}
    added, retimed, edited, unchanged = [], [], [], 0
    for job in definitions:
        row = stored.pop(job.name, None)
        if row is None:
            added.append(job)
        elif _needs_new_time(row, job, now):
            retimed.append(job)
        elif row.definition_hash != job.definition_hash:
            edited.append(job)
        else:
            unchanged += 1
    removed = [name for name, row in stored.items() if row.removed_at is None and row.definition_hash != REPORTED]
    return _Differences(added, retimed, edited, removed, unchanged)


def _needs_new_time(row: Row[*tuple[Any, ...]], job: JobDefinition, now: datetime) -> bool:
    if row.removed_at is not None or row.error is not None:
        return True
    if (row.schedule, row.timezone, row.enabled) != (job.schedule, job.timezone, job.enabled):
        return True
    # Somebody emptied it: without this the job would never fire again, and nothing would say so.
    return row.next_run_at is None and _timing(job, now)["next_run_at"] is not None


def _update(connection: Connection, rows: Sequence[Mapping[str, Any]], stamp: Mapping[str, Any]) -> None:
    if not rows:
        return
    names = [name for name in rows[0] if name != "id"]
    statement = update(schedules).where(schedules.c.id == bindparam("row_id"))
    statement = statement.values({name: bindparam(f"new_{name}", type_=schedules.c[name].type) for name in names})
    connection.execute(
        statement.values(**stamp),
        [{"row_id": row["id"]} | {f"new_{name}": row[name] for name in names} for row in rows],
    )


def _remove(connection: Connection, database: Database, names: Sequence[str]) -> None:
    now = database.dialect.now()
    connection.execute(
        update(schedules).where(schedules.c.id.in_(names)).values(removed_at=now, next_run_at=None, updated_at=now)
    )
    cancelled = connection.execute(
        update(runs)
        .where(runs.c.schedule_id.in_(names), runs.c.state == RunState.QUEUED.value)
        .values(state=RunState.CANCELLED.value, reason=Reason.JOB_REMOVED.value, finished_at=now)
        .returning(runs.c.id, runs.c.schedule_id, runs.c.attempt)
    ).all()
    facts = {"state": RunState.CANCELLED.value, "reason": Reason.JOB_REMOVED.value}
    outbox.add_all(
        connection,
        database,
        [
            outbox.notice(
                "run.cancelled",
                run_id=row.id,
                schedule_id=row.schedule_id,
                job=row.schedule_id,
                attempt=row.attempt,
                **facts,
            )
            for row in cancelled
        ],
    )


def _timing(job: JobDefinition, now: datetime) -> dict[str, Any]:
    if job.schedule is None or not job.enabled:
        return {"next_run_at": None, "error": None}
    try:
        return {"next_run_at": parse_schedule(job.schedule, job.timezone).next_after(now), "error": None}
    except ScheduleError as error:
        return {"next_run_at": None, "error": str(error)}


def _row(job: JobDefinition) -> dict[str, Any]:
    """Return everything of the row that the config decides."""
    return {
        "id": job.name,
        "kind": job.kind,
        "schedule": job.schedule,
        "timezone": job.timezone,
        "queue": job.queue,
        "priority": job.priority,
        "params": dict(job.params),
        "enabled": job.enabled,
        "catch_up": job.catch_up.mode.value,
        "catch_up_max_runs": job.catch_up.max_runs,
        "catch_up_max_age_seconds": job.catch_up.max_age.total_seconds(),
        "overlap": job.overlap.value,
        "start_deadline_seconds": None if job.start_deadline is None else job.start_deadline.total_seconds(),
        "jitter_seconds": job.jitter.total_seconds(),
        "timeout_seconds": None if job.timeout is None else job.timeout.total_seconds(),
        "max_attempts": job.retry.max_attempts,
        "retry": job.retry.as_json(),
        "mutex": job.mutex,
        "limit_key": job.limit_key,
        "keep": None if job.keep is None else dict(job.keep),
        "then_run": None if job.then is None else dict(job.then),
        "definition_hash": job.definition_hash,
    }
