"""Debian's cron, minute by minute: an oracle that shares nothing with batchd.

Written from crontab(5), cron(8) and the loop in cron's own cron.c: each minute it compares the local wall clock with
the minute that it has worked up to ("virtual time"), and decides by the difference. What its sources call a wild job
has a star in front of its minute or hour; all others are fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES = (
    (),
    (),
    (),
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
)
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_SMALL_JUMP, _LARGE_JUMP = 5, 180
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH = _EPOCH.replace(tzinfo=None)
_DAY = 24 * 60
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """The time fields of one line, as bits."""

    fields: tuple[frozenset[int], ...]
    is_wild: bool
    has_day_star: bool

    def matches(self, wall: datetime) -> bool:
        """Return whether cron starts it in this minute of the wall clock."""
        return wall.minute in self.fields[0] and wall.hour in self.fields[1] and self.matches_day(wall)

    def matches_day(self, wall: datetime) -> bool:
        """Return whether cron starts it at all on this day of the wall clock."""
        _, _, days, months, weekdays = self.fields
        by_day, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        return wall.month in months and ((by_day and by_weekday) if self.has_day_star else (by_day or by_weekday))

    def minutes_between(self, first: int, last: int) -> Iterator[int]:
        """Yield the local minutes from `first` to `last` in which it matches, day by day."""
        times = [hour * 60 + minute for hour in self.fields[1] for minute in self.fields[0]]
        for day in range(first // _DAY, last // _DAY + 1):
            if self.matches_day(_LOCAL_EPOCH + day * _DAY * _MINUTE):
                yield from (minute for time in times if first <= (minute := day * _DAY + time) <= last)


def entry(text: str) -> Entry:
    """Return the entry of five fields or a nickname."""
    parts = _NICKNAMES.get(text, text).split()
    fields = tuple(_bits(part, *bounds, names) for part, bounds, names in zip(parts, _RANGES, _NAMES, strict=True))
    weekdays = fields[4] | ({0} if 7 in fields[4] else set())
    return Entry(
        (*fields[:4], frozenset(weekdays)),
        is_wild=parts[0].startswith("*") or parts[1].startswith("*"),
        has_day_star=parts[2].startswith("*") or parts[4].startswith("*"),
    )


class Clock:
    """The minutes from `first` to `last` with the wall clock of a zone, made once for many entries."""

    def __init__(self, zone: str, first: datetime, last: datetime) -> None:
        self.moments: list[datetime] = []
        self.local: list[int] = []
        self.walls: dict[int, datetime] = {}
        self.quiet_until: list[int] = []
        at, info = first, ZoneInfo(zone)
        while at <= last:
            wall = at.astimezone(info).replace(tzinfo=None)
            minute = int((wall - _LOCAL_EPOCH) / _MINUTE)
            self.moments.append(at)
            self.local.append(minute)
            at += _MINUTE
        end = len(self.local) - 1
        for place in reversed(range(len(self.local))):
            if place < len(self.local) - 1 and self.local[place + 1] != self.local[place] + 1:
                end = place
            self.quiet_until.append(end)
        self.quiet_until.reverse()

    def wall(self, minute: int) -> datetime:
        """Return the wall clock's reading of a local minute, also of one that it skips."""
        if minute not in self.walls:
            self.walls[minute] = _LOCAL_EPOCH + minute * _MINUTE
        return self.walls[minute]

    def gap_ends(self) -> set[datetime]:
        """Return the first minutes after the clock went forward."""
        steps = zip(self.moments[1:], self.local, self.local[1:], strict=False)
        return {moment for moment, before, now in steps if now - before > 1}


def fire_minutes(job: Entry, clock: Clock) -> set[datetime]:
    """Return the minutes in which cron starts the job, by its loop over the clock."""
    found: set[datetime] = set()
    virtual, place = clock.local[0] - 1, 0
    while place < len(clock.moments):
        moment, now = clock.moments[place], clock.local[place]
        jump = now - virtual
        if jump == 1:  # and so it goes on until the clock is changed the next time
            end = clock.quiet_until[place]
            found.update(clock.moments[place + due - now] for due in job.minutes_between(now, clock.local[end]))
            virtual, place = clock.local[end], end + 1
            continue
        place += 1
        if 0 < jump <= _SMALL_JUMP or abs(jump) >= _LARGE_JUMP:
            due = range(virtual + 1, now + 1) if jump <= _SMALL_JUMP and jump > 0 else range(now, now + 1)
            virtual = now
        elif jump > 0:  # the clock went forward: fixed jobs of the minutes that were skipped run now
            due = range(now, now + 1) if job.is_wild else range(virtual + 1, now + 1)
            virtual = now
        else:  # the clock went back: only wild jobs run until virtual time is reached again
            due = range(now, now + 1) if job.is_wild else range(0)
        if any(job.matches(clock.wall(minute)) for minute in due):
            found.add(moment)
    return found


def _bits(text: str, first: int, last: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            low, high = first, last
        else:
            start, dash, stop = span.partition("-")
            low = _number(start, names, first)
            high = _number(stop, names, first) if dash else low
        found.update(range(low, high + 1, int(step or 1)))
    return frozenset(found)


def _number(word: str, names: tuple[str, ...], first: int) -> int:
    return names.index(word.lower()) + first if word.lower() in names else int(word)
