"""What /metrics shows of the store: few short questions, each with an index or a small table behind it.

depths        the queued and running runs, which is what a daemon looks at as well
by job        one row a job; its newest runs once, at the beginning, and then only what has finished since
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, case, func, select

from batchd.db.engine import Database
from batchd.domain.queue import QueueLimits
from batchd.domain.run import RunState
from batchd.store.alert_schema import OPEN, incidents
from batchd.store.queries import QueueView, StoreStatus, WorkerView, store_status
from batchd.store.schema import runs, schedules

_NEWEST = 200
_LATE_COMMITS = timedelta(minutes=2)
_SUCCEEDED = RunState.SUCCEEDED.value


@dataclass(frozen=True, slots=True)
class JobGauges:
    """One job: how it stands, when it runs next, when it last ended and last succeeded, how long that took."""

    name: str
    state: str
    next_run_at: datetime | None
    last_run_at: datetime | None = None
    last_success_at: datetime | None = None
    last_duration_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Gauges:
    """The store at one moment of its own clock."""

    now: datetime
    oldest_due: datetime | None
    oldest_ready: datetime | None
    queues: tuple[QueueView, ...]
    oldest_by_queue: dict[str, datetime]
    running_by_job: dict[str, int]
    workers: tuple[WorkerView, ...]
    incidents_by_rule: dict[str, int]
    jobs: tuple[JobGauges, ...]


class GaugeReader:
    """Remembers when each job last ended, so that a scrape reads only what is new. For one thread at a time."""

    def __init__(self) -> None:
        self._last: dict[str, JobGauges] = {}
        self._seen_until: datetime | None = None

    def read(self, store: Database, limits: QueueLimits | None = None) -> Gauges:
        """Return the gauges now; `limits` as for `store_status`."""
        status = store_status(store, limits)
        with store.reading() as connection:
            jobs = self._jobs(connection, status)
            return Gauges(
                now=status.now,
                oldest_due=status.oldest_due,
                oldest_ready=status.oldest_ready,
                queues=status.queues,
                oldest_by_queue=_oldest_by_queue(connection, status.now),
                running_by_job=_running_by_job(connection),
                workers=status.workers,
                incidents_by_rule=_open_incidents(connection),
                jobs=jobs,
            )

    def _jobs(self, connection: Connection, status: StoreStatus) -> tuple[JobGauges, ...]:
        known = _schedules(connection)
        for gone in self._last.keys() - known.keys():
            del self._last[gone]
        if self._seen_until is not None:
            self._take_news(connection, self._seen_until - _LATE_COMMITS)
        for name in known.keys() - self._last.keys():
            self._last[name] = _newest(connection, known[name])
        self._seen_until = status.now
        return tuple(
            replace(self._last[name], state=job.state, next_run_at=job.next_run_at)
            for name, job in sorted(known.items())
        )

    def _take_news(self, connection: Connection, since: datetime) -> None:
        last_ones = (
            select(
                func.max(runs.c.id).label("newest"),
                func.max(case((runs.c.state == _SUCCEEDED, runs.c.finished_at))).label("succeeded_at"),
            )
            .where(runs.c.finished_at >= since, runs.c.schedule_id.is_not(None), runs.c.started_at.is_not(None))
            .group_by(runs.c.schedule_id)
            .subquery()
        )
        statement = select(runs.c.schedule_id, runs.c.started_at, runs.c.finished_at, last_ones.c.succeeded_at).join(
            last_ones, last_ones.c.newest == runs.c.id
        )
        for row in connection.execute(statement):
            before = self._last.get(row.schedule_id)
            if before is not None:
                succeeded_at = _later(before.last_success_at, _moment(row.succeeded_at))
                self._last[row.schedule_id] = replace(_ended(before, row), last_success_at=succeeded_at)


def _schedules(connection: Connection) -> dict[str, JobGauges]:
    columns = (schedules.c.id, schedules.c.enabled, schedules.c.paused_at, schedules.c.error, schedules.c.next_run_at)
    rows = connection.execute(select(*columns).where(schedules.c.removed_at.is_(None)))
    return {row.id: JobGauges(row.id, _state(row), row.next_run_at) for row in rows}


def _state(row: Any) -> str:
    if row.error is not None:
        return "invalid"
    if row.paused_at is not None:
        return "paused"
    return "enabled" if row.enabled else "disabled"


def _newest(connection: Connection, job: JobGauges) -> JobGauges:
    """Return the job with what its newest runs say; older ones are not looked at."""
    newest = (
        select(runs.c.state, runs.c.started_at, runs.c.finished_at)
        .where(runs.c.schedule_id == job.name)
        .order_by(runs.c.id.desc())
        .limit(_NEWEST)
    )
    found = job
    for row in connection.execute(newest):
        if row.finished_at is None or row.started_at is None:
            continue
        if found.last_run_at is None:
            found = _ended(found, row)
        if row.state == _SUCCEEDED:
            return replace(found, last_success_at=row.finished_at)
    return found


def _ended(job: JobGauges, row: Any) -> JobGauges:
    if job.last_run_at is not None and row.finished_at < job.last_run_at:
        return job
    seconds = max(0.0, (row.finished_at - row.started_at).total_seconds())
    return replace(job, last_run_at=row.finished_at, last_duration_seconds=seconds)


def _oldest_by_queue(connection: Connection, now: datetime) -> dict[str, datetime]:
    waiting = and_(runs.c.state == RunState.QUEUED.value, runs.c.waits_for.is_(None), runs.c.available_at <= now)
    statement = select(runs.c.queue, func.min(runs.c.available_at)).where(waiting).group_by(runs.c.queue)
    return {row[0]: row[1] for row in connection.execute(statement)}


def _running_by_job(connection: Connection) -> dict[str, int]:
    running = runs.c.state == RunState.RUNNING.value
    statement = select(runs.c.schedule_id, func.count()).where(running).group_by(runs.c.schedule_id)
    return {row[0] or "": row[1] for row in connection.execute(statement)}


def _open_incidents(connection: Connection) -> dict[str, int]:
    statement = select(incidents.c.rule, func.count()).where(incidents.c.state == OPEN).group_by(incidents.c.rule)
    return {row[0]: row[1] for row in connection.execute(statement)}


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _moment(value: Any) -> datetime | None:
    """Return an aggregate's moment, whose type SQLAlchemy may not know through a CASE."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value
