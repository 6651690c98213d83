"""When a schedule fires: text as people write it becomes a rule that answers "what comes after this moment?".

Rules know nothing of the past: the same question always has the same answer, before and after a restart.

Daylight saving time, for cron fields in a zone that changes its offset:

    spring, 02:00 → 03:00      30 2 * * *  fires at 03:00, right after the gap   */20 * * * *  keeps its rhythm
    autumn, 03:00 → 02:00      30 2 * * *  fires at the first 02:30 only         */20 * * * *  keeps its rhythm

A job at fixed times (no star in minute and hour) fires once a day that it names, whatever the clock does; that is what
Debian's cron does (cron(8), "daylight saving time"). A job with a star in the hour follows real time. One with a star
in the minute only (`*/10 2 * * *`) follows real time, and if the gap swallows its hour, fires once right after.
"""

from __future__ import annotations

import abc
import copy
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from batchd.domain.fire_count import WallCount, count_fires
from batchd.domain.quantities import DurationTooLong, format_duration, parse_duration
from batchd.domain.retry import fraction_of

EPOCH = datetime(1970, 1, 5, tzinfo=UTC)
"""Intervals are counted from this Monday, so that `every 1w` is a Monday's midnight in UTC."""

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_AT_TIME = re.compile(r"every\s+(.+?)\s+at\s+(\d{1,2}):(\d{2})(?::(\d{2}))?")
_EXAMPLES = 'for example "*/5 * * * *", "@daily", "every 5m", "every monday at 18:30" or "at 2027-01-01T00:00"'
_SECOND = timedelta(seconds=1)
_MOST_KNOWN = 16
_OF_ONE = re.compile(r"(?<![\w-])(\w+)-\1/\d+")
"""`1-1/2` has one number, as cron reads it; CronSim takes it for `1/2`, which goes on to the field's end."""

_LONGEST_GAP = timedelta(days=2)
"""More than any zone has ever skipped: a day, where the date line moved."""

_CRON_FIELDS = (5, 6)
_FIRST_YEAR, _LAST_YEAR = 1900, 2999
_MOST_DAYS = 10_000
_DAYS_OF_MONTH = re.compile(r"(?:0?[1-9]|[12]\d|3[01])(?:[,-](?:0?[1-9]|[12]\d|3[01]))*")


class ScheduleError(ValueError):
    """A schedule that cannot be understood or never fires; the message says what is wrong and what to write."""


class Rule(abc.ABC):
    """When to fire. Immutable; any thread may use it."""

    is_reboot = False

    @abc.abstractmethod
    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first fire time strictly after the aware moment, in UTC, or None when there is none any more."""

    def fires_between(self, first: datetime, last: datetime) -> Iterator[datetime]:
        """Yield the fire times after `first`, up to and including `last`."""
        fire = self.next_after(first)
        while fire is not None and fire <= last:
            yield fire
            fire = self.next_after(fire)

    def count_between(self, first: datetime, last: datetime) -> int:
        """Return how many fire times there are after `first`, up to and including `last`; exact, and quick."""
        return sum(1 for _ in self.fires_between(first, last))


@dataclass(frozen=True, slots=True)
class IntervalRule(Rule):
    """Every so often, counted from EPOCH by the real clock: the same times whenever the daemon started."""

    interval: timedelta

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the next multiple of the interval."""
        return EPOCH + ((moment - EPOCH) // self.interval + 1) * self.interval

    def count_between(self, first: datetime, last: datetime) -> int:
        """See `Rule`."""
        return max(0, (last - EPOCH) // self.interval - (first - EPOCH) // self.interval)


@dataclass(frozen=True, slots=True)
class OnceRule(Rule):
    """At one moment."""

    at: datetime

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the moment, unless it has passed."""
        return self.at if self.at > moment else None


class RebootRule(Rule):
    """Once at each start of a daemon; never by the clock."""

    is_reboot = True

    def next_after(self, moment: datetime) -> datetime | None:  # noqa: ARG002
        """Return None: the start itself fires it."""
        return None


class CronRule(Rule):
    """Cron fields in a time zone, every `every_days`-th day of those that match (1: all)."""

    def __init__(self, fields: str, zone: tzinfo, *, every_days: int = 1) -> None:
        fields = _OF_ONE.sub(r"\1", fields)
        parts = fields.split()
        minute, hour = parts[-5], parts[-4]
        self._parsed = CronSim(fields, datetime(2000, 1, 1))  # noqa: DTZ001 (a wall clock)
        self._zone = zone
        self._every_days = every_days
        self._hour_is_free = hour.startswith("*")
        self._minute_is_free = minute.startswith("*")
        self._walls = WallCount(fields, every_days=every_days)
        self._known: dict[datetime, datetime | None] = {}

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the next fire time under the rule for daylight saving time in the module's docstring.

        The last answers are remembered: jobs with the same schedule ask for the same moments, together.
        """
        if moment not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known = {}
            self._known[moment] = self._next(moment.astimezone(UTC))
        return self._known.get(moment)

    def _next(self, moment: datetime) -> datetime | None:
        if self._hour_is_free:
            return self._next_in_real_time(moment)
        if not self._minute_is_free:
            return self._next_by_wall_clock(moment)
        real, after_gap = self._next_in_real_time(moment), self._next_after_gap(moment)
        return min((fire for fire in (real, after_gap) if fire is not None), default=None)

    def count_between(self, first: datetime, last: datetime) -> int:
        """See `Rule`; years take milliseconds."""
        return count_fires(self._walls, self._zone, first, last, super().count_between)

    def _next_by_wall_clock(self, moment: datetime) -> datetime | None:
        """Walk the wall clock's fire times, each of which happens exactly once."""
        for wall in self._walls_after(self._unserved_from(moment)):
            fire = _first_moment_of(wall, self._zone)
            if fire > moment:
                return fire
        return None

    def _next_in_real_time(self, moment: datetime) -> datetime | None:
        """Follow the clock through stretches of constant offset."""
        while True:
            offset = _offset(moment, self._zone)
            wall = next(self._walls_after((moment + offset).replace(tzinfo=None)), None)
            if wall is None:
                return None
            fire = wall.replace(tzinfo=UTC) - offset
            if _offset(fire, self._zone) == offset:
                return fire
            # The offset changes before that: go on from just before the change, under the new offset.
            moment = _change_between(moment, fire, self._zone) - _SECOND

            new_offset = _offset(moment + _SECOND, self._zone)
            wall = next(self._walls_after((moment + new_offset).replace(tzinfo=None)), None)
            if wall is None:
                return None
            fire = wall.replace(tzinfo=UTC) - new_offset
            if _offset(fire, self._zone) == new_offset:
                return fire
            moment += _SECOND

    def _next_after_gap(self, moment: datetime) -> datetime | None:
        """Return the end of the next gap that swallows a fire time, if it comes before the next ordinary one."""
        for wall in self._walls_after(self._unserved_from(moment)):
            fire = _first_moment_of(wall, self._zone)
            if fire <= moment:
                continue
            return fire if _wall(fire, self._zone) != wall else None
        return None

    def _unserved_from(self, moment: datetime) -> datetime:
        """Return from which time on the wall clock there may be fires after the moment."""
        wall = _wall(moment, self._zone)
        if _offset(moment - _LONGEST_GAP, self._zone) == _offset(moment, self._zone):
            return wall
        # A fire in a gap happens after it: the wall clock may already be past the time that is still to be served.
        return wall - _LONGEST_GAP

    def _walls_after(self, wall: datetime) -> Iterator[datetime]:
        """Yield the naive wall clock times that match the fields, after `wall`."""
        walk = copy.copy(self._parsed)  # to parse the fields takes longer than the walk
        walk.dt = wall.replace(microsecond=0)
        for match in walk:
            if self._every_days == 1 or match.toordinal() % self._every_days == 0:
                yield match


def parse_schedule(text: str, timezone: str) -> Rule:
    """Return the rule that the text means in the time zone; raises ScheduleError."""
    return _parse(" ".join(text.split()), timezone)


def fire_delay(seed: str, fire: datetime, jitter: timedelta) -> timedelta:
    """Return a delay from zero to `jitter` that depends on the schedule and the fire time alone."""
    return jitter * fraction_of(f"{seed}@{fire.isoformat()}") if jitter else jitter


def zone_named(name: str) -> ZoneInfo:
    """Return the IANA time zone; raises ScheduleError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(f"unknown time zone {name!r}; write an IANA name such as Europe/Berlin or UTC") from error


@functools.lru_cache(maxsize=65_536)
def _parse(text: str, timezone: str) -> Rule:
    zone = zone_named(timezone)
    lowered = text.lower()
    if lowered == "@reboot":
        return RebootRule()
    if lowered.startswith("@"):
        if lowered not in NICKNAMES:
            known = ", ".join((*NICKNAMES, "@reboot"))
            raise ScheduleError(f"unknown schedule {text!r}; there are {known}")
        return CronRule(NICKNAMES[lowered], zone)
    if lowered.startswith("at "):
        return _once(text[3:], zone)
    if lowered.startswith("every "):
        return _every(lowered, zone)
    return _cron(text, zone)


def _once(text: str, zone: tzinfo) -> Rule:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ScheduleError(f'not a moment: {text!r}; write "at 2027-01-01T00:00"') from error
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ScheduleError(f"{text!r} is not a moment from {_FIRST_YEAR} to {_LAST_YEAR}")
    if moment.tzinfo is None:
        return OnceRule(_first_moment_of(moment, zone))
    return OnceRule(moment.astimezone(UTC))


def _every(text: str, zone: tzinfo) -> Rule:
    match = _AT_TIME.fullmatch(text)
    if match is None:
        return _interval(text.removeprefix("every "))
    what, hour, minute, second = match[1], int(match[2]), int(match[3]), match[4]
    if hour > 23 or minute > 59 or int(second or 0) > 59:  # noqa: PLR2004
        raise ScheduleError(f"{hour}:{minute:02} is not a time of day")
    clock = f"{minute} {hour}" if second is None else f"{int(second)} {minute} {hour}"
    days = re.fullmatch(r"(?:(\d+)\s+)?days?", what)
    if days:
        step = int(days[1] or 1)
        if step < 1:
            raise ScheduleError("every 0 days is never; write a number from 1")
        if step > _MOST_DAYS:
            raise ScheduleError(f"every {step} days is too seldom; the longest is {_MOST_DAYS} days")
        return CronRule(f"{clock} * * *", zone, every_days=step)
    if what == "weekday":
        return CronRule(f"{clock} * * 1-5", zone)
    named = [day for day in _DAYS if len(what) > 2 and day.startswith(what)]  # noqa: PLR2004
    if not named:
        raise ScheduleError(
            f'cannot read {what!r} in "{text}"; write "every 2 days at 09:00" or "every monday at 18:30"'
        )
    return CronRule(f"{clock} * * {_DAYS.index(named[0])}", zone)


def _interval(text: str) -> Rule:
    spelled = re.sub(r"\s*(second|minute|hour|day|week)s?\b", lambda unit: unit[1][0], text)
    try:
        interval = parse_duration(spelled if spelled[:1].isdigit() else f"1{spelled}")
    except DurationTooLong as error:
        raise ScheduleError(f'"every {text}" is too seldom: {error}') from error
    except ValueError as error:
        raise ScheduleError(f'cannot read "every {text}"; write {_EXAMPLES}') from error
    if interval < _SECOND:
        raise ScheduleError(f"every {format_duration(interval)} is too often; the shortest interval is 1s")
    return IntervalRule(interval)


def _cron(text: str, zone: tzinfo) -> Rule:
    count = len(text.split())
    if count not in _CRON_FIELDS:
        raise ScheduleError(
            f"{text!r} is not a schedule: cron has 5 fields (6 with seconds), here are {count}; {_EXAMPLES}"
        )
    try:
        rule = CronRule(text, zone)
        first = next(iter(CronSim(text, datetime(2000, 1, 1))), None)  # noqa: DTZ001
    except CronSimError as error:
        said = str(error).lower()
        is_a_day = "day-of-month" in said and _DAYS_OF_MONTH.fullmatch(text.split()[-3])
        advice = ": none of its months has such a day" if is_a_day else ""
        raise ScheduleError(f"{text!r} is not a cron schedule: {said} field{advice}") from error
    if first is None:
        raise ScheduleError(f"{text!r} never fires: there is no such day")
    return rule


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _first_moment_of(wall: datetime, zone: tzinfo) -> datetime:
    """Return when the wall clock first shows the time; for a time inside a gap, when the gap ends."""
    aware = wall.replace(tzinfo=zone, fold=0)
    moment = aware.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None, fold=0) == wall:
        return moment
    # PEP 495: inside a gap fold=0 takes the offset from before it, fold=1 the one from after it.
    later = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return _change_between(min(moment, later) - _SECOND, max(moment, later), zone)


def _change_between(first: datetime, last: datetime, zone: tzinfo) -> datetime:
    """Return the first moment, to the second, at which the zone no longer has the offset that it has at `first`."""
    offset = _offset(first, zone)
    low, high = int(first.timestamp()), int(last.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(datetime.fromtimestamp(middle, UTC), zone) == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)
