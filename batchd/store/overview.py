"""The first page: what runs, what failed, what comes next, and the last 24 hours of the jobs that matter most now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, func, select

from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store.job_history import Strip, strips_of
from batchd.store.run_lists import Count, RunLine, counted, in_state, lines_of, newest_lines
from batchd.store.schema import runs, schedules

STRIP_PART = timedelta(minutes=30)
STRIP_PARTS = 48
"""A strip has the last 24 hours in half hours."""

_DAY = timedelta(days=1)
_MOST_RUNNING = 12
_MOST_FAILED = 6
_MOST_COMING = 12
_FAILURES_LOOKED_AT = 200
_DEAD = (RunState.FAILED, RunState.QUARANTINED)


@dataclass(frozen=True, slots=True)
class Coming:
    """A job that has a next fire time. `took` is how long its newest run that ended took, None when there is none."""

    job: str
    schedule: str
    timezone: str
    next_run_at: datetime
    took: timedelta | None


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs there are, how many of them are paused, and how many cannot be planned."""

    jobs: int
    paused: int
    broken: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The store at `now` by its own clock. `strip_start` is where the strips begin."""

    now: datetime
    running: tuple[RunLine, ...]
    running_count: Count
    queued_count: Count
    failed: tuple[RunLine, ...]
    last_day: Mapping[str, int]
    coming: tuple[Coming, ...]
    jobs: JobCounts
    strip_start: datetime
    strips: tuple[Strip, ...]


def overview(store: Database, *, strips: int = 40) -> Overview:
    """Return the page's facts from one read transaction, with the strips of so many jobs: those with trouble first."""
    with store.reading() as connection:
        now = connection.execute(select(store.dialect.now())).scalar_one()
        failed = _failed_since(connection, now - _DAY)
        running = _running(connection)
        start = strip_start(now)
        named = _jobs_to_show(connection, [run.schedule_id for run in (*failed, *running)], strips)
        return Overview(
            now=now,
            running=running,
            running_count=counted(connection, in_state(RunState.RUNNING)),
            queued_count=counted(connection, in_state(RunState.QUEUED)),
            failed=failed[:_MOST_FAILED],
            last_day=_last_day(connection, now - _DAY),
            coming=_coming(connection),
            jobs=_job_counts(connection),
            strip_start=start,
            strips=strips_of(connection, store, named, start, STRIP_PART, STRIP_PARTS),
        )


def strip_start(now: datetime) -> datetime:
    """Return where a strip that ends with the half hour of `now` begins."""
    part = STRIP_PART.total_seconds()
    return datetime.fromtimestamp((now.timestamp() // part + 1) * part, now.tzinfo) - STRIP_PART * STRIP_PARTS


def _running(connection: Connection) -> tuple[RunLine, ...]:
    statement = select(runs.c.id).where(in_state(RunState.RUNNING)).order_by(runs.c.started_at.desc(), runs.c.id.desc())
    return lines_of(connection, list(connection.scalars(statement.limit(_MOST_RUNNING))))


def _failed_since(connection: Connection, since: datetime) -> tuple[RunLine, ...]:
    newest = newest_lines(connection, None, frozenset(_DEAD), _FAILURES_LOOKED_AT)
    return tuple(run for run in newest if run.finished_at is not None and run.finished_at >= since)


def _last_day(connection: Connection, since: datetime) -> dict[str, int]:
    statement = select(runs.c.state, func.count()).where(runs.c.finished_at >= since).group_by(runs.c.state)
    return {row[0]: row[1] for row in connection.execute(statement)}


def _coming(connection: Connection) -> tuple[Coming, ...]:
    due = (
        select(schedules.c.id, schedules.c.schedule, schedules.c.timezone, schedules.c.next_run_at)
        .where(schedules.c.next_run_at.is_not(None), schedules.c.paused_at.is_(None), schedules.c.removed_at.is_(None))
        .order_by(schedules.c.next_run_at, schedules.c.id)
        .limit(_MOST_COMING)
    )
    rows = connection.execute(due).all()
    return tuple(
        Coming(row.id, row.schedule or "", row.timezone, row.next_run_at, _newest_duration(connection, row.id))
        for row in rows
    )


def _newest_duration(connection: Connection, job: str) -> timedelta | None:
    statement = (
        select(runs.c.started_at, runs.c.finished_at)
        .where(runs.c.schedule_id == job, runs.c.finished_at.is_not(None))
        .order_by(runs.c.finished_at.desc())
        .limit(1)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None or row.started_at is None else max(row.finished_at - row.started_at, timedelta(0))


def _job_counts(connection: Connection) -> JobCounts:
    def number(*also: ColumnElement[bool]) -> int:
        statement = select(func.count()).where(schedules.c.removed_at.is_(None), *also)
        return int(connection.execute(statement).scalar_one())

    return JobCounts(number(), number(schedules.c.paused_at.is_not(None)), number(schedules.c.error.is_not(None)))


def _jobs_to_show(connection: Connection, first: list[str | None], most: int) -> list[str]:
    """Return the names of these jobs, and then of others in order of names."""
    chosen = [job for job in dict.fromkeys(first) if job is not None][:most]
    others = (
        select(schedules.c.id)
        .where(schedules.c.removed_at.is_(None), schedules.c.id.not_in(chosen))
        .order_by(schedules.c.id)
        .limit(max(0, most - len(chosen)))
    )
    return [*chosen, *connection.scalars(others)]
