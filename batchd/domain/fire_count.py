"""How many times cron fields match between two moments, by arithmetic: a year of minutes takes as long as a day.

Where the zone's offset does not change, the fields match exactly the wall clock's times: whole days are multiplied, the
first and the last are cut. Around a change of the offset the fires are counted one by one, by the rule itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, tzinfo

from cronsim import CronSim

_DAY = timedelta(days=1)
_STEP = timedelta(hours=12)
_MINUTE = timedelta(minutes=1)

OneByOne = Callable[[datetime, datetime], int]
"""Counts the fires after the first moment, up to and including the second, by looking at each."""


class WallCount:
    """Counts matches of cron fields on a wall clock that never changes. Immutable."""

    def __init__(self, fields: str, *, every_days: int = 1) -> None:
        self._sim = CronSim(fields, datetime(2000, 1, 1))  # noqa: DTZ001 (a wall clock)
        self._hours, self._minutes, self._seconds = (
            sorted(part) for part in (self._sim.hours, self._sim.minutes, self._sim.seconds)
        )
        self._each_minute = len(self._seconds)
        self._each_hour = len(self._minutes) * self._each_minute
        self._each_day = len(self._hours) * self._each_hour
        self._every_days = every_days

    def between(self, first: datetime, last: datetime) -> int:
        """Return how many matches there are after `first`, up to and including `last`; both naive."""
        if last <= first:
            return 0
        count = self._in_day_up_to(last) - self._in_day_up_to(first)
        day = first.date()
        while day < last.date():
            count += self._each_day if self._matches(day) else 0
            day += _DAY
        return count

    def _matches(self, day: date) -> bool:
        is_step = self._every_days == 1 or day.toordinal() % self._every_days == 0
        return is_step and day.month in self._sim.months and self._sim.match_day(day)

    def _in_day_up_to(self, moment: datetime) -> int:
        """Return the matches of the moment's day, up to and including the moment."""
        if not self._matches(moment.date()):
            return 0
        hours, minutes = bisect_left(self._hours, moment.hour), bisect_left(self._minutes, moment.minute)
        count = hours * self._each_hour
        if self._hours[hours : hours + 1] == [moment.hour]:
            count += minutes * self._each_minute
            if self._minutes[minutes : minutes + 1] == [moment.minute]:
                count += bisect_left(self._seconds, moment.second + 1)
        return count


def count_fires(walls: WallCount, zone: tzinfo, first: datetime, last: datetime, one_by_one: OneByOne) -> int:
    """Return the fires after `first`, up to and including `last` (aware); exact for every zone."""
    count, reached = 0, first
    for change, shift in _changes(first, last, zone):
        # A fire that the change moves, repeats or swallows lies no further from it than the clock jumps.
        before, after = min(last, change - shift), min(last, change + shift)
        if before > reached:
            count += walls.between(_wall(reached, zone), _wall(before, zone))
            reached = before
        if after > reached:
            count += one_by_one(reached, after)
            reached = after
    return count + walls.between(_wall(reached, zone), _wall(last, zone))


def _changes(first: datetime, last: datetime, zone: tzinfo) -> Iterator[tuple[datetime, timedelta]]:
    """Yield the changes of the offset around the range: when, to the minute, and how far the clock jumps, and more."""
    moment, end = first - 2 * _DAY, last + 2 * _DAY
    offset = _offset(moment, zone)
    while moment < end:
        low, high = moment, moment + _STEP
        moment = high
        there = _offset(high, zone)
        if there == offset:
            continue
        while high - low > _MINUTE:
            middle = low + (high - low) / 2
            low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
        yield high, abs(there - offset) + 2 * _MINUTE
        offset = there


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)
