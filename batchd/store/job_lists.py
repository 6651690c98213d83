"""Jobs as the store knows them, for pages: a page of them with their newest runs and last 24 hours, and one in full."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, or_, select

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.store.job_history import Strip, strips_of
from batchd.store.overview import STRIP_PART, STRIP_PARTS, strip_start
from batchd.store.run_lists import RunLine, lines_of
from batchd.store.schema import runs, schedules
from batchd.store.views import columns_of

PAGE = 50


@dataclass(frozen=True, slots=True)
class JobRow:
    """One row of `batchd_schedules`: a job with every default filled in and every secret taken out.

    `error` says why its schedule cannot be planned.
    """

    id: str
    kind: str
    schedule: str | None
    timezone: str
    queue: str
    priority: int
    params: JsonObject
    enabled: bool
    next_run_at: datetime | None
    paused_at: datetime | None
    removed_at: datetime | None
    catch_up: str
    catch_up_max_runs: int
    catch_up_max_age_seconds: float
    overlap: str
    start_deadline_seconds: float | None
    jitter_seconds: float
    timeout_seconds: float | None
    max_attempts: int
    retry: JsonObject
    mutex: str | None
    limit_key: str | None
    keep: JsonObject | None
    then_run: JsonObject | None
    error: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job with its newest run and its last 24 hours."""

    row: JobRow
    last_run: RunLine | None
    strip: Strip


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs by name; `next_after` is the name to go on after, None at the end. `strip_start` is where strips begin."""

    jobs: tuple[ListedJob, ...]
    next_after: str | None
    now: datetime
    strip_start: datetime


def job_page(store: Database, *, search: str = "", paused: bool = False, after: str = "", limit: int = PAGE) -> JobPage:
    """Return the jobs of the config whose name or kind holds the text (in any case), perhaps only those paused."""
    wanted: list[ColumnElement[bool]] = [schedules.c.removed_at.is_(None), schedules.c.id > after]
    if search:
        wanted.append(
            or_(
                *(
                    func.lower(schedules.c[name]).contains(search.lower(), autoescape=True)
                    for name in ("id", "kind", "queue")
                )
            )
        )
    if paused:
        wanted.append(schedules.c.paused_at.is_not(None))
    statement = select(*columns_of(JobRow, schedules)).where(*wanted).order_by(schedules.c.id).limit(limit + 1)
    with store.reading() as connection:
        now = connection.execute(select(store.dialect.now())).scalar_one()
        found = [JobRow(**row) for row in connection.execute(statement).mappings()]
        shown = found[:limit]
        start = strip_start(now)
        strips = strips_of(connection, store, [job.id for job in shown], start, STRIP_PART, STRIP_PARTS)
        newest = _newest_runs(connection, [job.id for job in shown])
    jobs = tuple(ListedJob(job, newest.get(job.id), strip) for job, strip in zip(shown, strips, strict=True))
    return JobPage(jobs, shown[-1].id if len(found) > limit else None, now, start)


def find_job(store: Database, name: str) -> JobRow | None:
    """Return the job, also one that the config no longer has, or None."""
    with store.reading() as connection:
        row = (
            connection.execute(select(*columns_of(JobRow, schedules)).where(schedules.c.id == name))
            .mappings()
            .one_or_none()
        )
    return None if row is None else JobRow(**row)


def _newest_runs(connection: Connection, jobs: list[str]) -> dict[str, RunLine]:
    newest = (
        select(runs.c.id)
        .where(runs.c.schedule_id == schedules.c.id)
        .order_by(runs.c.id.desc())
        .limit(1)
        .correlate(schedules)
        .scalar_subquery()
    )
    rows = connection.execute(select(schedules.c.id, newest.label("newest")).where(schedules.c.id.in_(jobs))).all()
    lines = {line.id: line for line in lines_of(connection, [row.newest for row in rows if row.newest is not None])}
    return {row.id: lines[row.newest] for row in rows if row.newest in lines}
