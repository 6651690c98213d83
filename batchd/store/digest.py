"""What became of the runs of a period, and of the period before it: what the daily report says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Integer, and_, case, cast, func, literal, select

from batchd.db.engine import Database
from batchd.db.types import UtcTimestamp
from batchd.domain.run import RunState
from batchd.store.schema import runs, schedules

BUCKETS = 24
"""Into how many equal parts a period is divided for the course of the day."""

_MOST_FAILURES = 10
_BAD = (RunState.FAILED.value, RunState.QUARANTINED.value)

COUNTED: Mapping[str, tuple[str, ...]] = {
    "cleanup": ("rows_deleted",),
    "sync": ("added", "changed", "removed"),
    "csv_import": ("inserted", "updated"),
    "csv_export": ("rows",),
}
"""Which numbers of which kinds' results are summed up."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Runs by state (`missed` counts fire times), the time that they took together, and sums of `COUNTED` results."""

    states: Mapping[str, int]
    busy: timedelta
    counted: Mapping[str, Mapping[str, int]]

    @property
    def runs(self) -> int:
        """How many runs did work: succeeded, failed, cancelled or quarantined."""
        idle = {RunState.SKIPPED.value, RunState.MISSED.value}
        return sum(count for state, count in self.states.items() if state not in idle)

    @property
    def failed(self) -> int:
        """How many runs ended badly."""
        return sum(self.states.get(state, 0) for state in _BAD)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One part of the period."""

    start: datetime
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class JobDigest:
    """One job's runs that did work."""

    job: str
    kind: str
    runs: int
    failed: int
    mean: timedelta
    longest: timedelta


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that ended badly. `error` is text that a job wrote."""

    run_id: int
    job: str
    finished_at: datetime
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class Digest:
    """The period from `since` to before `until`. `jobs` are the slowest first, `failures` the newest first."""

    since: datetime
    until: datetime
    totals: Totals
    before: Totals
    buckets: tuple[Bucket, ...]
    jobs: tuple[JobDigest, ...]
    failures: tuple[FailedRun, ...]
    broken: Mapping[str, str]
    paused: tuple[str, ...]


def digest(store: Database, since: datetime, until: datetime) -> Digest:
    """Return the period's digest from one read transaction; `since` must be before `until`."""
    with store.reading() as connection, store.dialect.read_only(connection):
        return Digest(
            since=since,
            until=until,
            totals=_totals(connection, store, since, until),
            before=_totals(connection, store, since - (until - since), since),
            buckets=_buckets(connection, store, since, until),
            jobs=_jobs(connection, store, since, until),
            failures=_failures(connection, since, until),
            broken=_broken(connection),
            paused=_paused(connection),
        )


def _within(since: datetime, until: datetime) -> ColumnElement[bool]:
    return and_(runs.c.finished_at >= since, runs.c.finished_at < until)


def _took(store: Database) -> ColumnElement[float]:
    return store.dialect.seconds_between(runs.c.started_at, runs.c.finished_at)


def _totals(connection: Connection, store: Database, since: datetime, until: datetime) -> Totals:
    by_state = (
        select(runs.c.state, func.sum(runs.c.fire_count), func.count(), func.sum(_took(store)))
        .where(_within(since, until))
        .group_by(runs.c.state)
    )
    states: dict[str, int] = {}
    busy = 0.0
    for state, fires, count, seconds in connection.execute(by_state):
        states[state] = int(fires) if state == RunState.MISSED.value else count
        busy += seconds or 0.0
    return Totals(states, timedelta(seconds=busy), _counted(connection, store, since, until))


def _counted(connection: Connection, store: Database, since: datetime, until: datetime) -> dict[str, dict[str, int]]:
    keys = sorted({key for named in COUNTED.values() for key in named})
    sums = [func.sum(store.dialect.json_number(runs.c.result, key)) for key in keys]
    statement = (
        select(runs.c.kind, *sums)
        .where(_within(since, until), runs.c.kind.in_(COUNTED), runs.c.result.is_not(None))
        .group_by(runs.c.kind)
    )
    found: dict[str, dict[str, int]] = {}
    for kind, *values in connection.execute(statement):
        pairs = zip(keys, values, strict=True)
        found[kind] = {key: round(value) for key, value in pairs if value is not None and key in COUNTED[kind]}
    return found


def _buckets(connection: Connection, store: Database, since: datetime, until: datetime) -> tuple[Bucket, ...]:
    length = (until - since) / BUCKETS
    seconds = store.dialect.seconds_between(literal(since, UtcTimestamp()), runs.c.finished_at)
    number = cast(func.floor(seconds / length.total_seconds()), Integer)
    statement = (
        select(
            number,
            func.sum(case((runs.c.state == RunState.SUCCEEDED.value, 1), else_=0)),
            func.sum(case((runs.c.state.in_(_BAD), 1), else_=0)),
        )
        .where(_within(since, until))
        .group_by(number)
    )
    # A moment that rounding puts at the very end belongs to the last part.
    found: dict[int, tuple[int, int]] = {}
    for index, succeeded, failed in connection.execute(statement):
        place = min(max(index, 0), BUCKETS - 1)
        before = found.get(place, (0, 0))
        found[place] = (before[0] + succeeded, before[1] + failed)
    return tuple(Bucket(since + index * length, *found.get(index, (0, 0))) for index in range(BUCKETS))


def _jobs(connection: Connection, store: Database, since: datetime, until: datetime) -> tuple[JobDigest, ...]:
    name = func.coalesce(runs.c.schedule_id, runs.c.kind)
    longest = func.max(_took(store))
    statement = (
        select(
            name,
            func.min(runs.c.kind),
            func.count(),
            func.sum(case((runs.c.state.in_(_BAD), 1), else_=0)),
            func.avg(_took(store)),
            longest,
        )
        .where(_within(since, until), runs.c.started_at.is_not(None))
        .group_by(name)
        .order_by(longest.desc(), name)
    )
    return tuple(
        JobDigest(job, kind, count, failed, timedelta(seconds=max(0.0, mean)), timedelta(seconds=max(0.0, most)))
        for job, kind, count, failed, mean, most in connection.execute(statement)
    )


def _failures(connection: Connection, since: datetime, until: datetime) -> tuple[FailedRun, ...]:
    statement = (
        select(runs.c.id, runs.c.schedule_id, runs.c.kind, runs.c.finished_at, runs.c.attempt, runs.c.error)
        .where(_within(since, until), runs.c.state.in_(_BAD))
        .order_by(runs.c.finished_at.desc(), runs.c.id.desc())
        .limit(_MOST_FAILURES)
    )
    return tuple(
        FailedRun(row.id, row.schedule_id or row.kind, row.finished_at, row.attempt, row.error or "")
        for row in connection.execute(statement)
    )


def _broken(connection: Connection) -> dict[str, str]:
    statement = select(schedules.c.id, schedules.c.error).where(
        schedules.c.error.is_not(None), schedules.c.removed_at.is_(None)
    )
    return {row.id: row.error for row in connection.execute(statement.order_by(schedules.c.id))}


def _paused(connection: Connection) -> tuple[str, ...]:
    statement = select(schedules.c.id).where(schedules.c.paused_at.is_not(None), schedules.c.removed_at.is_(None))
    return tuple(connection.scalars(statement.order_by(schedules.c.id)))
