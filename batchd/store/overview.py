"""The first page: what runs, what failed, what comes next, and the last 24 hours of the jobs that matter most now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store.incidents import count_open_in
from batchd.store.job_history import Strip, strips_of
from batchd.store.run_lists import Count, RunLine, in_state, lines_of, newest_ids
from batchd.store.schema import runs, schedules

STRIP_PART = timedelta(minutes=30)
STRIP_PARTS = 48
"""A strip has the last 24 hours in half hours."""

_DAY = timedelta(days=1)
_MOST_RUNNING = 12
_MOST_FAILED = 6
_MOST_COMING = 12
_FAILURES_LOOKED_AT = 200
_ENDINGS_COUNTED = 20_000
_MOST_IN_BADGE = 99
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
    """The store at `now` by its own clock. `strip_start` is where the strips begin.

    `last_day` counts by state the newest `_ENDINGS_COUNTED` endings of the last 24 hours; each is `is_more` when there
    are more than that.
    """

    now: datetime
    running: tuple[RunLine, ...]
    failed: tuple[RunLine, ...]
    last_day: Mapping[str, Count]
    coming: tuple[Coming, ...]
    jobs: JobCounts
    strip_start: datetime
    strips: tuple[Strip, ...]


@dataclass(frozen=True, slots=True)
class Badges:
    """Runs that failed for good, counted to `_MOST_IN_BADGE`, and open incidents."""

    dead: Count
    open_incidents: int


def overview(store: Database, *, strips: int = 40) -> Overview:
    """Return the page's facts from one read transaction, with the strips of so many jobs: those with trouble first."""
    with store.reading() as connection:
        now = connection.execute(select(store.dialect.now())).scalar_one()
        failed = _failed_since(connection, now - _DAY)
        running = _running(connection)
        shown = [run_id for run_id, _ in failed[:_MOST_FAILED]]
        lines = {line.id: line for line in lines_of(connection, [*shown, *running])}
        start = strip_start(now)
        first = [*(job for _, job in failed), *(lines[run_id].schedule_id for run_id in running if run_id in lines)]
        named = _jobs_to_show(connection, first, strips)
        return Overview(
            now=now,
            running=tuple(lines[run_id] for run_id in running if run_id in lines),
            failed=tuple(lines[run_id] for run_id in shown if run_id in lines),
            last_day=_last_day(connection, now - _DAY),
            coming=_coming(connection),
            jobs=_job_counts(connection),
            strip_start=start,
            strips=strips_of(connection, store, named, start, STRIP_PART, STRIP_PARTS),
        )


def badges(store: Database) -> Badges:
    """Return what the menu of each page says, from one transaction."""
    with store.reading() as connection:
        some = newest_ids(None, frozenset(_DEAD), _MOST_IN_BADGE + 1).subquery()
        number = connection.scalar(select(func.count()).select_from(some)) or 0
        return Badges(Count(min(number, _MOST_IN_BADGE), number > _MOST_IN_BADGE), count_open_in(connection))


def strip_start(now: datetime) -> datetime:
    """Return where a strip that ends with the half hour of `now` begins."""
    part = STRIP_PART.total_seconds()
    return datetime.fromtimestamp((now.timestamp() // part + 1) * part, now.tzinfo) - STRIP_PART * STRIP_PARTS


def _running(connection: Connection) -> list[int]:
    statement = select(runs.c.id).where(in_state(RunState.RUNNING)).order_by(runs.c.started_at.desc(), runs.c.id.desc())
    return list(connection.scalars(statement.limit(_MOST_RUNNING)))


def _failed_since(connection: Connection, since: datetime) -> list[tuple[int, str | None]]:
    """Return the newest runs that failed for good since then, each with its job."""
    # Two statements: given the first inside of the second, a planner may well read all runs.
    newest = connection.scalars(newest_ids(None, frozenset(_DEAD), _FAILURES_LOOKED_AT)).all()
    statement = select(runs.c.id, runs.c.schedule_id).where(runs.c.id.in_(newest), runs.c.finished_at >= since)
    return [(run_id, job) for run_id, job in connection.execute(statement.order_by(runs.c.id.desc()))]


def _last_day(connection: Connection, since: datetime) -> dict[str, Count]:
    newest = (
        select(runs.c.state)
        .where(runs.c.finished_at >= since)
        .order_by(runs.c.finished_at.desc())
        .limit(_ENDINGS_COUNTED + 1)
        .subquery()
    )
    statement = select(newest.c.state, func.count()).group_by(newest.c.state)
    found = {row[0]: row[1] for row in connection.execute(statement)}
    is_more = sum(found.values()) > _ENDINGS_COUNTED
    return {state: Count(number, is_more) for state, number in found.items()}


def _coming(connection: Connection) -> tuple[Coming, ...]:
    due = (
        select(schedules.c.id, schedules.c.schedule, schedules.c.timezone, schedules.c.next_run_at)
        .where(schedules.c.next_run_at.is_not(None), schedules.c.paused_at.is_(None), schedules.c.removed_at.is_(None))
        .order_by(schedules.c.next_run_at, schedules.c.id)
        .limit(_MOST_COMING)
        .subquery()
    )
    ended = runs.alias()
    newest = (
        select(ended.c.id)
        .where(ended.c.schedule_id == due.c.id, ended.c.finished_at.is_not(None))
        .order_by(ended.c.finished_at.desc())
        .limit(1)
        .correlate(due)
        .scalar_subquery()
    )
    statement = (
        select(due, runs.c.started_at, runs.c.finished_at)
        .select_from(due.outerjoin(runs, runs.c.id == newest))
        .order_by(due.c.next_run_at, due.c.id)
    )
    return tuple(
        Coming(row.id, row.schedule or "", row.timezone, row.next_run_at, _took(row.started_at, row.finished_at))
        for row in connection.execute(statement)
    )


def _took(started_at: datetime | None, finished_at: datetime | None) -> timedelta | None:
    return None if started_at is None or finished_at is None else max(finished_at - started_at, timedelta(0))


def _job_counts(connection: Connection) -> JobCounts:
    numbers = (func.count(), func.count(schedules.c.paused_at), func.count(schedules.c.error))
    return JobCounts(*connection.execute(select(*numbers).where(schedules.c.removed_at.is_(None))).one())


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
