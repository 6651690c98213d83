"""What a person or a program may ask about the store: read models, each from one short read transaction.

Nothing here creates a table or a file. Moments are aware UTC; ages are measured by the database's clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.domain.queue import QueueLimits
from batchd.domain.run import RunState
from batchd.store import listeners
from batchd.store.fan_outs import count_children
from batchd.store.listeners import ListenerView
from batchd.store.run_lists import newest_ids
from batchd.store.schema import attempts, log_lines, queues, runs, schedules, workers
from batchd.store.views import all_of, columns_of
from batchd.store.waiting_runs import oldest_ready

ALIVE_WITHIN = timedelta(seconds=30)
"""A daemon whose last heartbeat is older than a lease counts as dead."""

_DAY_SECONDS = 86_400.0
_MOST_WORKERS = 50


@dataclass(frozen=True, slots=True)
class RunView:
    """One row of `batchd_runs`. `error` and `progress_note` are text that a job wrote: clean it before you print it."""

    id: int
    schedule_id: str | None
    kind: str
    queue: str
    priority: int
    state: str
    reason: str | None
    scheduled_for: datetime | None
    scheduled_until: datetime | None
    fire_count: int
    available_at: datetime
    timeout_seconds: float | None
    attempt: int
    max_attempts: int
    losses: int
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    progress_done: int | None
    progress_total: int | None
    progress_note: str | None
    params: JsonObject
    result: JsonObject | None
    error: str | None
    created_by: str
    parent_id: int | None
    child_key: str | None
    unique_key: str | None
    tags: list[str] | None
    metadata: JsonObject | None
    after_id: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to the run by itself."""
        return RunState(self.state).is_final

    @property
    def duration(self) -> timedelta | None:
        """Return how long the last attempt ran; None when it never started or still runs."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(self.finished_at - self.started_at, timedelta(0))


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One row of `batchd_attempts`; `outcome` None while it runs."""

    fence: int
    number: int
    worker: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    error_type: str | None
    error_message: str | None
    error_traceback: str | None


@dataclass(frozen=True, slots=True)
class LogLineView:
    """One row of `batchd_log_lines`."""

    at: datetime
    level: str
    event: str
    message: str
    fields: JsonObject


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run with its attempts (oldest first) and its last log lines (oldest first).

    `children` counts the runs that it queued, by state.
    """

    run: RunView
    attempts: tuple[AttemptView, ...]
    log_lines: tuple[LogLineView, ...]
    children: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class JobView:
    """One job of the config as the store knows it, with its newest run, if it has one."""

    name: str
    kind: str
    schedule: str | None
    timezone: str
    queue: str
    enabled: bool
    paused_at: datetime | None
    next_run_at: datetime | None
    error: str | None
    last_run: RunView | None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list: of one job or parent, with all tags, in some states, not finished before a moment, older."""

    job: str | None = None
    parent: int | None = None
    tags: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    since: datetime | None = None
    before_id: int | None = None
    limit: int = 20


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One daemon; `heartbeat_age_seconds` by the database's clock, `schema_version` of the tables it was made for."""

    id: str
    host: str
    pid: int
    version: str
    slots: int
    state: str
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_age_seconds: float
    config_error: str | None
    schema_version: int | None

    @property
    def is_alive(self) -> bool:
        """Whether the daemon says that it runs and said so lately."""
        return self.state != "stopped" and self.heartbeat_age_seconds < ALIVE_WITHIN.total_seconds()


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue: runs that may begin now, later, or when their mutex or key has room; runs that run, in all daemons."""

    queue: str
    ready: int
    later: int
    parked: int
    running: int
    paused_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The store at one moment of the database's clock, `now`.

    `oldest_due` is the oldest fire time that no planner has served, `oldest_ready` since when the longest-waiting run
    that nothing holds back could have been claimed (a run whose job is running already is held back, and one whose
    queue is full).
    """

    now: datetime
    workers: tuple[WorkerView, ...]
    oldest_due: datetime | None
    oldest_ready: datetime | None
    queues: tuple[QueueView, ...]
    last_day: Mapping[str, int]
    broken_jobs: tuple[str, ...]
    listeners: tuple[ListenerView, ...] = ()

    @property
    def alive(self) -> tuple[WorkerView, ...]:
        """Return the daemons that are alive."""
        return tuple(worker for worker in self.workers if worker.is_alive)


def job_names(database: Database) -> tuple[str, ...]:
    """Return the names of the jobs that the config has, as of the daemon's last start."""
    statement = select(schedules.c.id).where(schedules.c.removed_at.is_(None)).order_by(schedules.c.id)
    with database.reading() as connection:
        return tuple(connection.scalars(statement))


def jobs(database: Database, *, only: str | None = None) -> tuple[JobView, ...]:
    """Return every job that the config has, by name, each with its newest run; or only the one of that name."""
    newest = (
        select(func.max(runs.c.id)).where(runs.c.schedule_id == schedules.c.id).correlate(schedules).scalar_subquery()
    )
    own = [
        schedules.c.id.label("name"),
        *(schedules.c[name] for name in ("kind", "schedule", "timezone", "queue", "enabled")),
        *(schedules.c[name] for name in ("paused_at", "next_run_at", "error")),
        newest.label("newest"),
    ]
    statement = select(*own).where(schedules.c.removed_at.is_(None)).order_by(schedules.c.id)
    if only is not None:
        statement = statement.where(schedules.c.id == only)
    with database.reading() as connection:
        rows = [dict(row) for row in connection.execute(statement).mappings()]
        newest_runs = _runs_by_id(connection, [row["newest"] for row in rows if row["newest"] is not None])
    return tuple(JobView(last_run=newest_runs.get(row.pop("newest")), **row) for row in rows)


def list_runs(database: Database, wanted: RunFilter) -> tuple[RunView, ...]:
    """Return the newest runs that the filter lets through, newest first."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.job is not None:
        conditions.append(runs.c.schedule_id == wanted.job)
    if wanted.parent is not None:
        conditions.append(runs.c.parent_id == wanted.parent)
    conditions += [database.dialect.json_list_has(runs.c.tags, tag) for tag in sorted(wanted.tags)]
    if wanted.since is not None:
        conditions.append(or_(runs.c.finished_at.is_(None), runs.c.finished_at >= wanted.since))
    if wanted.before_id is not None:
        conditions.append(runs.c.id < wanted.before_id)
    states = frozenset(map(RunState, wanted.states))
    newest = newest_ids(and_(*conditions) if conditions else None, states, wanted.limit)
    with database.reading() as connection:
        ids = list(connection.scalars(newest))
        found = _runs_by_id(connection, ids)
    return tuple(found[run_id] for run_id in ids if run_id in found)


def find_run(database: Database, run_id: int) -> RunView | None:
    """Return the run, or None when there is none of that id."""
    with database.reading() as connection:
        return _runs_by_id(connection, [run_id]).get(run_id)


def run_detail(database: Database, run_id: int, *, lines: int = 100) -> RunDetail | None:
    """Return the run with its attempts and its last `lines` log lines, or None when there is none of that id."""
    tries = select(*columns_of(AttemptView, attempts)).where(attempts.c.run_id == run_id).order_by(attempts.c.fence)
    said = (
        select(*columns_of(LogLineView, log_lines))
        .where(log_lines.c.run_id == run_id)
        .order_by(log_lines.c.id.desc())
        .limit(lines)
    )
    with database.reading() as connection:
        run = _runs_by_id(connection, [run_id]).get(run_id)
        if run is None:
            return None
        newest_first = all_of(connection, said, LogLineView)
        tried = all_of(connection, tries, AttemptView)
        return RunDetail(run, tried, tuple(reversed(newest_first)), count_children(connection, run_id))


def alive_workers(database: Database) -> tuple[WorkerView, ...]:
    """Return the daemons that are alive."""
    return tuple(worker for worker in listed_workers(database) if worker.is_alive)


def listed_workers(database: Database) -> tuple[WorkerView, ...]:
    """Return the daemons, the one that was heard of last first."""
    with database.reading() as connection:
        return _workers(connection, _now(connection, database))


def listed_queues(database: Database) -> tuple[QueueView, ...]:
    """Return every queue that has unfinished runs or is paused, by name."""
    with database.reading() as connection:
        now = _now(connection, database)
        return _queues(connection, now)


def store_status(database: Database, limits: QueueLimits | None = None) -> StoreStatus:
    """Return who is alive, what waits and for how long, and what became of the last 24 hours' runs.

    `limits` say which queues may be full: they stand in the config, not in the store.
    """
    with database.reading() as connection:
        now = _now(connection, database)
        due = select(func.min(schedules.c.next_run_at)).where(
            schedules.c.next_run_at <= now, schedules.c.paused_at.is_(None), schedules.c.removed_at.is_(None)
        )
        finished = (
            select(runs.c.state, func.count())
            .where(runs.c.finished_at >= database.dialect.now_plus(-_DAY_SECONDS))
            .group_by(runs.c.state)
        )
        broken = select(schedules.c.id).where(schedules.c.error.is_not(None), schedules.c.removed_at.is_(None))
        return StoreStatus(
            now=now,
            workers=_workers(connection, now),
            oldest_due=connection.execute(due).scalar_one(),
            oldest_ready=min(oldest_ready(connection, database, now, limits or QueueLimits()).values(), default=None),
            queues=_queues(connection, now),
            last_day={row[0]: row[1] for row in connection.execute(finished)},
            broken_jobs=tuple(connection.scalars(broken.order_by(schedules.c.id))),
            listeners=listeners.views(connection, database),
        )


def _now(connection: Connection, database: Database) -> datetime:
    return connection.execute(select(database.dialect.now())).scalar_one()


def _queues(connection: Connection, now: datetime) -> tuple[QueueView, ...]:
    queued = runs.c.state == RunState.QUEUED.value
    counted = {
        "ready": and_(queued, runs.c.waits_for.is_(None), runs.c.available_at <= now),
        "later": and_(queued, runs.c.waits_for.is_(None), runs.c.available_at > now),
        "parked": and_(queued, runs.c.waits_for.is_not(None)),
        "running": runs.c.state == RunState.RUNNING.value,
    }
    statement = (
        select(runs.c.queue, *(func.sum(case((which, 1), else_=0)).label(name) for name, which in counted.items()))
        .where(runs.c.state.in_([RunState.QUEUED.value, RunState.RUNNING.value]))
        .group_by(runs.c.queue)
    )
    found = {row["queue"]: dict(row) for row in connection.execute(statement).mappings()}
    paused = select(queues.c.name, queues.c.paused_at).where(queues.c.paused_at.is_not(None))
    paused_at = {row.name: row.paused_at for row in connection.execute(paused)}
    empty = dict.fromkeys(counted, 0)
    return tuple(
        QueueView(**{**empty, **found.get(name, {}), "queue": name}, paused_at=paused_at.get(name))
        for name in sorted(found.keys() | paused_at.keys())
    )


def _workers(connection: Connection, now: datetime) -> tuple[WorkerView, ...]:
    names = [field.name for field in dataclasses.fields(WorkerView) if field.name in workers.c]
    newest = (workers.c.heartbeat_at.desc(), workers.c.id)
    statement = select(*(workers.c[name] for name in names)).order_by(*newest).limit(_MOST_WORKERS)
    return tuple(
        WorkerView(heartbeat_age_seconds=max(0.0, (now - row["heartbeat_at"]).total_seconds()), **row)
        for row in connection.execute(statement).mappings()
    )


def _runs_by_id(connection: Connection, ids: list[int]) -> dict[int, RunView]:
    found = all_of(connection, select(*columns_of(RunView, runs)).where(runs.c.id.in_(ids)), RunView)
    return {run.id: run for run in found}
