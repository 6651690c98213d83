"""What judging needs to know: events of the outbox, the runs that they are about, and what no event tells.

Each function is one short read transaction, through an index, bounded by what is open or unfinished now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, case, func, literal, select

from batchd.db.engine import Database
from batchd.db.types import UtcTimestamp
from batchd.domain.job import JsonObject
from batchd.domain.queue import QueueLimits
from batchd.domain.run import EXTERNAL_KIND, RunState
from batchd.store.schema import outbox, runs, schedules, workers
from batchd.store.waiting_runs import oldest_ready

_LAST_DURATIONS = 100
_LAST_COUNTS = 10
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """One row of the outbox."""

    id: int
    event: str
    run_id: int | None
    schedule_id: str | None
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run as its row says now. `rows` is its progress: how many rows it worked on."""

    id: int
    job: str | None
    kind: str
    state: str
    scheduled_for: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    rows: int | None

    @property
    def seconds(self) -> float | None:
        """How long its last attempt took; None while it runs."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class WatchedJob:
    """A job that the config has, as its row says. `since` is when the row last changed: config, pause, resume.

    `params` are those of an external job only.
    """

    name: str
    kind: str
    schedule: str | None
    timezone: str
    params: JsonObject
    is_expected: bool
    since: datetime
    jitter_seconds: float


@dataclass(frozen=True, slots=True)
class RunningRun:
    """A run at work, and for how many seconds by the database's clock."""

    id: int
    job: str | None
    kind: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Daemons:
    """Daemons that fell silent (id to host and last heartbeat), and those that are alive (id to start)."""

    silent: Mapping[str, tuple[str, datetime]]
    alive: Mapping[str, datetime]
    known: Collection[str]


def events_after(store: Database, last_id: int, up_to: int, limit: int) -> tuple[OutboxEvent, ...]:
    """Return the events behind `last_id`, up to and including `up_to`, the oldest first."""
    columns = [outbox.c[name] for name in ("id", "event", "run_id", "schedule_id", "payload")]
    statement = select(*columns).where(outbox.c.id > last_id, outbox.c.id <= up_to).order_by(outbox.c.id).limit(limit)
    with store.reading() as connection:
        return tuple(
            OutboxEvent(row.id, row.event, row.run_id, row.schedule_id, _object(row.payload))
            for row in connection.execute(statement)
        )


def run_facts(store: Database, ids: Collection[int]) -> dict[int, RunFacts]:
    """Return the runs of those ids that are still there."""
    if not ids:
        return {}
    names = ("id", "kind", "state", "scheduled_for", "started_at", "finished_at")
    columns: list[Any] = [runs.c[name] for name in names]
    columns += [runs.c.schedule_id.label("job"), runs.c.progress_done.label("rows")]
    statement = select(*columns).where(store.dialect.is_among(runs.c.id, sorted(ids)))
    with store.reading() as connection:
        return {row["id"]: RunFacts(**row) for row in connection.execute(statement).mappings()}


def last_durations(store: Database, job: str) -> list[float]:
    """Return how many seconds each of the job's last runs took that succeeded."""
    statement = (
        select(runs.c.started_at, runs.c.finished_at)
        .where(runs.c.schedule_id == job, runs.c.state == RunState.SUCCEEDED.value, runs.c.started_at.is_not(None))
        .order_by(runs.c.id.desc())
        .limit(_LAST_DURATIONS)
    )
    with store.reading() as connection:
        return [max(0.0, (row.finished_at - row.started_at).total_seconds()) for row in connection.execute(statement)]


def last_row_counts(store: Database, job: str, before_run: int) -> list[int | None]:
    """Return how many rows each of the job's successes before that run worked on, the newest first."""
    statement = (
        select(runs.c.progress_done)
        .where(runs.c.schedule_id == job, runs.c.state == RunState.SUCCEEDED.value, runs.c.id < before_run)
        .order_by(runs.c.id.desc())
        .limit(_LAST_COUNTS)
    )
    with store.reading() as connection:
        return list(connection.execute(statement).scalars())


def jobs_mark(store: Database) -> tuple[object, ...]:
    """Return what is another than before when `watched_jobs` is: a row came, went, or has another `updated_at`.

    The sum is for a change that commits after a later one was seen.
    """
    age = store.dialect.seconds_between(literal(_EPOCH, UtcTimestamp()), schedules.c.updated_at)
    statement = select(func.count(), func.max(schedules.c.updated_at), func.sum(age))
    with store.reading() as connection:
        return tuple(connection.execute(statement.where(schedules.c.removed_at.is_(None))).one())


def watched_jobs(store: Database) -> tuple[WatchedJob, ...]:
    """Return the jobs that the config has; one that is paused or disabled is not expected to run."""
    names = ("id", "kind", "schedule", "timezone", "enabled", "paused_at", "updated_at", "jitter_seconds")
    params = case((schedules.c.kind == EXTERNAL_KIND, schedules.c.params)).label("params")
    statement = select(*(schedules.c[name] for name in names), params).where(schedules.c.removed_at.is_(None))
    with store.reading() as connection:
        return tuple(
            WatchedJob(
                name=row.id,
                kind=row.kind,
                schedule=row.schedule,
                timezone=row.timezone,
                params=dict(_object(row.params)),
                is_expected=row.enabled and row.paused_at is None,
                since=row.updated_at,
                jitter_seconds=row.jitter_seconds,
            )
            for row in connection.execute(statement)
        )


def last_successes(store: Database, jobs: Collection[str], before_run: int | None = None) -> dict[str, datetime]:
    """Return when the last run of each job that succeeded began (of those before a run); without one, left out."""
    is_success = and_(runs.c.schedule_id == schedules.c.id, runs.c.state == RunState.SUCCEEDED.value)
    newest = (
        select(runs.c.started_at)
        .where(is_success if before_run is None else and_(is_success, runs.c.id < before_run))
        .order_by(runs.c.id.desc())
        .limit(1)
        .correlate(schedules)
        .scalar_subquery()
    )
    these = store.dialect.is_among(schedules.c.id, sorted(jobs))
    statement = select(schedules.c.id, newest.label("began")).where(these)
    with store.reading() as connection:
        return {row.id: row.began for row in connection.execute(statement) if row.began is not None}


def running(store: Database) -> tuple[RunningRun, ...]:
    """Return every run that is at work."""
    dialect = store.dialect
    age = dialect.seconds_between(runs.c.started_at, dialect.now())
    statement = select(runs.c.id, runs.c.schedule_id, runs.c.kind, age.label("age")).where(
        runs.c.state == RunState.RUNNING.value, runs.c.started_at.is_not(None)
    )
    with store.reading() as connection:
        return tuple(
            RunningRun(row.id, row.schedule_id, row.kind, max(0.0, row.age)) for row in connection.execute(statement)
        )


def daemons(store: Database, silence_seconds: float) -> Daemons:
    """Return the daemons that have not been heard for so long although they never said that they stop."""
    names = ("id", "host", "state", "started_at", "heartbeat_at")
    with store.reading() as connection:
        limit = connection.execute(select(store.dialect.now_plus(-silence_seconds))).scalar_one()
        rows = connection.execute(select(*(workers.c[name] for name in names))).all()
    at_work = [row for row in rows if row.state != "stopped"]
    return Daemons(
        silent={row.id: (row.host, row.heartbeat_at) for row in at_work if row.heartbeat_at < limit},
        alive={row.id: row.started_at for row in at_work if row.heartbeat_at >= limit},
        known={row.id for row in rows},
    )


def waiting_since(store: Database, shortest_seconds: float, limits: QueueLimits) -> dict[str, datetime]:
    """Return by queue since when its oldest claimable run waits, where that is longer than so many seconds."""
    with store.reading() as connection:
        return oldest_ready(connection, store, store.dialect.now_plus(-shortest_seconds), limits)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}  # somebody may have edited the row
