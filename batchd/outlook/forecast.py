"""What is going to fire, and where that gets crowded: from the config, by the rules of `batchd.domain.schedule`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from batchd.domain.job import JobDefinition
from batchd.domain.quantities import format_duration
from batchd.domain.schedule import parse_schedule

_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_STEP = timedelta(hours=6)
_MOST_FIRES = 50_000
_MOST_BUSY = 10


@dataclass(frozen=True, slots=True)
class JobForecast:
    """One job: `fires` in UTC (the first 50,000), `count` all of them; `touches` what it works on, "database.table".

    `lasts` is how long a run usually takes, by history or as assumed.
    """

    job: str
    kind: str
    schedule: str | None
    timezone: str
    queue: str
    touches: str | None
    lasts: timedelta
    count: int
    fires: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class BusyMinute:
    """A minute in which many jobs fire."""

    minute: datetime
    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Collision:
    """Jobs whose runs usually meet: on one table, in one queue with too few places, or for one mutex."""

    on: str
    name: str
    jobs: tuple[str, ...]
    times: int
    first: datetime
    advice: str


@dataclass(frozen=True, slots=True)
class ClockNote:
    """What a change of a zone's clock does to one job."""

    timezone: str
    at: datetime
    change: str
    job: str
    effect: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """All of it, from `begin` to `end`."""

    begin: datetime
    end: datetime
    jobs: tuple[JobForecast, ...]
    busiest: tuple[BusyMinute, ...]
    collisions: tuple[Collision, ...]
    clock_notes: tuple[ClockNote, ...]


def forecast(
    jobs: Sequence[JobDefinition],
    begin: datetime,
    end: datetime,
    lasts: Mapping[str, timedelta],
    usual: timedelta,
    places: Mapping[str, int],
) -> Forecast:
    """Return what fires after `begin` up to `end`.

    `lasts` is how long the runs of a job usually take, `usual` of those that are not in it; `places` how many runs of a
    queue may run at once, where there is a limit.
    """
    found = tuple(_job_forecast(job, begin, end, lasts.get(job.name, usual)) for job in jobs)
    enabled = {job.name: job for job in jobs}
    return Forecast(
        begin,
        end,
        found,
        tuple(_busiest(found)),
        (*_meetings(found, enabled), *_full_queues(found, places)),
        tuple(note for job in jobs for note in _clock_notes(job, begin, end)),
    )


def _job_forecast(job: JobDefinition, begin: datetime, end: datetime, lasts: timedelta) -> JobForecast:
    fires: list[datetime] = []
    count = 0
    if job.schedule is not None and job.enabled:
        rule = parse_schedule(job.schedule, job.timezone)
        for fire in rule.fires_between(begin, end):
            fires.append(fire.astimezone(UTC))
            if len(fires) == _MOST_FIRES:
                break
        count = len(fires) if len(fires) < _MOST_FIRES else rule.count_between(begin, end)
    return JobForecast(
        job.name,
        job.kind,
        job.schedule if job.enabled else None,
        job.timezone,
        job.queue,
        touched_by(job.params),
        lasts,
        count,
        tuple(fires),
    )


def touched_by(params: Mapping[str, Any]) -> str | None:
    """Return the table that a job's params name, with its database, or None."""
    database, table = params.get("database"), params.get("table")
    return f"{database}.{table}" if isinstance(database, str) and isinstance(table, str) else None


def _busiest(jobs: Iterable[JobForecast]) -> list[BusyMinute]:
    at: dict[datetime, list[str]] = defaultdict(list)
    for job in jobs:
        for fire in job.fires:
            at[fire.replace(second=0, microsecond=0)].append(job.job)
    crowded = [(minute, names) for minute, names in at.items() if len(set(names)) > 1]
    crowded.sort(key=lambda each: (-len(set(each[1])), each[0]))
    return [BusyMinute(minute, tuple(sorted(set(names)))) for minute, names in crowded[:_MOST_BUSY]]


def _meetings(jobs: Sequence[JobForecast], definitions: Mapping[str, JobDefinition]) -> Iterable[Collision]:
    by_table: dict[str, list[JobForecast]] = defaultdict(list)
    by_mutex: dict[str, list[JobForecast]] = defaultdict(list)
    for job in jobs:
        mutex = definitions[job.job].mutex
        if mutex is not None:
            by_mutex[mutex].append(job)
        if job.touches is not None:
            by_table[job.touches].append(job)
    for table, sharing in sorted(by_table.items()):
        mutexes = {definitions[job.job].mutex for job in sharing}
        if len(mutexes) == 1 and None not in mutexes:
            continue  # they wait for each other already
        yield from _met("table", table, sharing, f'give them a common `mutex = "{table}"`, or move one of them')
    for mutex, sharing in sorted(by_mutex.items()):
        yield from _met("mutex", mutex, sharing, "one waits for the other; move one of them if it must not be late")


def _met(on: str, name: str, jobs: Sequence[JobForecast], advice: str) -> Iterable[Collision]:
    spans = sorted((fire, fire + job.lasts, job.job) for job in jobs for fire in job.fires)
    met: set[str] = set()
    times, first = 0, None
    open_until: dict[str, datetime] = {}
    for begin, end, job in spans:
        others = {other for other, until in open_until.items() if other != job and until > begin}
        if others:
            times += 1
            first = first or begin
            met |= {job, *others}
        open_until[job] = max(end, open_until.get(job, end))
    if first is not None:
        yield Collision(on, name, tuple(sorted(met)), times, first, advice)


def _full_queues(jobs: Sequence[JobForecast], places: Mapping[str, int]) -> Iterable[Collision]:
    for queue, most in sorted(places.items()):
        members = [job for job in jobs if job.queue == queue]
        changes = sorted(
            change
            for job in members
            for fire in job.fires
            for change in ((fire, 1, job.job), (fire + job.lasts, -1, job.job))
        )
        running: Counter[str] = Counter()
        waiting: set[str] = set()
        times, first = 0, None
        for moment, change, job in sorted(changes, key=lambda each: (each[0], each[1])):
            running[job] += change
            if change > 0 and running.total() > most:
                times += 1
                first = first or moment
                waiting |= {name for name, count in running.items() if count}
        if first is not None:
            advice = f"{most} may run at once: spread their times, or raise the limit"
            yield Collision("queue", queue, tuple(sorted(waiting)), times, first, advice)


def _clock_notes(job: JobDefinition, begin: datetime, end: datetime) -> Iterable[ClockNote]:
    if job.schedule is None or not job.enabled:
        return
    zone = ZoneInfo(job.timezone)
    rule = parse_schedule(job.schedule, job.timezone)
    for at, jump in clock_changes(zone, begin, end):
        word = "forward" if jump > timedelta(0) else "back"
        change = f"clock goes {word} {format_duration(abs(jump))}"
        around = [fire.astimezone(zone) for fire in rule.fires_between(at - abs(jump) - _MINUTE, at + abs(jump))]
        today, before = (rule.count_between(day, day + _DAY) for day in (at - _DAY / 2, at - _DAY * 3 / 2))
        if not around:
            continue
        if len(around) > 4:  # noqa: PLR2004
            effect = f"keeps its rhythm: {today} fires in the 24 hours around it, {before} in those before"
        else:
            effect = "fires at " + ", ".join(f"{fire:%H:%M:%S %z}" for fire in around)
            if any(fire == at for fire in around) and jump > timedelta(0):
                effect += ", right after the hour that does not exist"
            elif jump < timedelta(0):
                effect += ", once: the hour that comes twice counts once"
        yield ClockNote(job.timezone, at, change, job.name, effect)


def clock_changes(zone: ZoneInfo, begin: datetime, end: datetime) -> list[tuple[datetime, timedelta]]:
    """Return when the zone's offset changes between two moments, to the minute, and by how much."""
    moments = [begin]
    while moments[-1] < end:
        moments.append(min(moments[-1] + _STEP, end))
    found = []
    for low, high in pairwise(moments):
        before, after = _offset(low, zone), _offset(high, zone)
        if before == after:
            continue
        first, last = low, high
        while last - first > timedelta(seconds=1):
            middle = first + (last - first) / 2
            first, last = (middle, last) if _offset(middle, zone) == before else (first, middle)
        found.append((last.replace(second=0, microsecond=0), after - before))
    return found


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)
