"""OnCalendar expressions (systemd.time(7)) and time spans.

A weekday and a date must both match, which cron fields say only in part; see `batchd.moving.cron_fields.both_days`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from batchd.domain.schedule import ScheduleError, zone_named
from batchd.moving.cron_fields import Timing, Untranslatable, as_field, both_days

_SHORTHANDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "semi-annually": "*-01,07-01 00:00:00",
    "biannually": "*-01,07-01 00:00:00",
    "bi-annually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
    "anually": "*-01-01 00:00:00",
}
_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_DATE = re.compile(r"(?:([^-~]+)-)?([^-~]+)([-~])([^-~]+)")
_TIME = re.compile(r"([^:]+):([^:]+)(?::([^:]+))?")
_PART = re.compile(r"(\*|\d{1,4}(?:\.\d+)?)(?:\.\.(\d{1,4}(?:\.\d+)?))?(?:/(\d{1,4}(?:\.\d+)?))?")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Zµ]*)")
_LAST_WEEK = frozenset(range(1, 8))
_ALL_DAYS = frozenset(range(7))
_UNITS = {
    "us": 1e-6, "usec": 1e-6, "µs": 1e-6, "ms": 1e-3, "msec": 1e-3,
    "": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86_400, "day": 86_400, "days": 86_400,
    "w": 604_800, "week": 604_800, "weeks": 604_800,
    "M": 2_629_800, "month": 2_629_800, "months": 2_629_800,
    "y": 31_557_600, "year": 31_557_600, "years": 31_557_600,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Date:
    years: frozenset[int] | None
    months: frozenset[int]
    days: frozenset[int]
    from_end: bool


def calendar_timing(text: str, timezone: str) -> Timing:
    """Return when an OnCalendar expression fires; `timezone` is that of the machine. Raises Untranslatable."""
    words = text.split()
    zone = timezone
    if len(words) > 1 and _is_zone(words[-1]):
        zone = words.pop()
    if len(words) == 1 and words[0].lower() in _SHORTHANDS:
        words = _SHORTHANDS[words[0].lower()].split()
    weekdays = _ALL_DAYS
    if words and words[0][0].isalpha():
        weekdays = _weekdays(words.pop(0))
    date = _Date(None, frozenset(range(1, 13)), frozenset(range(1, 32)), from_end=False)
    clock: tuple[frozenset[int], ...] = (frozenset([0]), frozenset([0]), frozenset([0]))
    for word in words:
        if ":" in word:
            clock = _clock(word)
        else:
            date = _date(word)
    if not text.strip() or len(words) > 2:  # noqa: PLR2004 (a date and a time)
        raise Untranslatable(f"OnCalendar={text!r} is not understood")
    return _timing(text, zone, weekdays, date, clock)


def time_span(text: str) -> timedelta | None:
    """Return a span such as "1h 30min" or "90"; None for infinity. Raises Untranslatable."""
    if text.strip() == "infinity":
        return None
    seconds = 0.0
    rest = _SPAN.sub("", text).strip()
    parts = _SPAN.findall(text)
    if rest or not parts or any(unit not in _UNITS for _, unit in parts):
        raise Untranslatable(f"{text!r} is no time span")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return timedelta(seconds=seconds)
    except OverflowError as error:
        raise Untranslatable(f"{text!r} is too long") from error


def _timing(text: str, zone: str, weekdays: frozenset[int], date: _Date, clock: tuple[frozenset[int], ...]) -> Timing:
    hours, minutes, seconds = clock
    timing = Timing(None, zone)
    if date.years is not None:
        timing.schedule = _one_moment(text, weekdays, date, clock)
        return timing
    days, weekday_field = _day_fields(text, weekdays, date, timing)
    second_field = [] if seconds == {0} else [_stepped(seconds, 59)]
    fields = [*second_field, _stepped(minutes, 59), _stepped(hours, 23), days, as_field(date.months, 1, 12)]
    timing.schedule = " ".join([*fields, weekday_field])
    return timing


def _day_fields(text: str, weekdays: frozenset[int], date: _Date, timing: Timing) -> tuple[str, str]:
    if date.from_end:
        if date.days == {1}:
            timing.guard = None if weekdays == _ALL_DAYS else weekdays
            return "L", "*"
        if date.days == _LAST_WEEK and weekdays != _ALL_DAYS:
            return "*", ",".join(f"{day}L" for day in sorted(weekdays))
        raise Untranslatable(f"OnCalendar={text!r} counts days from the end of a month; batchd knows the last one only")
    if weekdays == _ALL_DAYS:
        return _stepped_days(date.days), "*"
    fields = both_days(date.days, weekdays)
    if fields is None:
        timing.guard = weekdays
        return as_field(date.days, 1, 31), "*"
    if "*/" in fields[0] + fields[1]:
        timing.changes.append(
            f"weekday and date must both match; `{fields[0]} … {fields[1]}` says so: a day field with a star in front "
            "(`*/31` is the 1st, `*/7` is Sunday) joins the two by and"
        )
    return fields


def _one_moment(text: str, weekdays: frozenset[int], date: _Date, clock: tuple[frozenset[int], ...]) -> str:
    sets = (date.years or frozenset(), date.months, date.days, *clock)
    if any(len(values) != 1 for values in sets) or date.from_end or weekdays != _ALL_DAYS:
        raise Untranslatable(f"OnCalendar={text!r} names years; batchd has one moment (`at …`), or every year")
    year, month, day, hour, minute, second = (next(iter(values)) for values in sets)
    return f"at {year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"


def _weekdays(word: str) -> frozenset[int]:
    found: set[int] = set()
    for part in word.rstrip(",").split(","):
        first, dots, last = part.replace("..", "-").partition("-")
        low = _weekday(first)
        high = _weekday(last) if dots else low
        # systemd's week begins on Monday: Sat..Sun is a range, Sun..Mon none
        if (low - 1) % 7 > (high - 1) % 7:
            raise Untranslatable(f"{part!r} is no range of weekdays")
        found.update((day + 1) % 7 for day in range((low - 1) % 7, (high - 1) % 7 + 1))
    return frozenset(found)


def _weekday(word: str) -> int:
    lowered = word.lower()
    for number, name in enumerate(_WEEKDAYS):
        if lowered in (name, name[:3]):
            return number
    raise Untranslatable(f"{word!r} is no weekday")


def _date(word: str) -> _Date:
    match = _DATE.fullmatch(word)
    if match is None:
        raise Untranslatable(f"{word!r} is no date")
    years = None if match[1] in (None, "*") else _values(match[1], 1970, 2199, "year")
    months = _values(match[2], 1, 12, "month")
    from_end = match[3] == "~"
    return _Date(years, months, _from_end(match[4]) if from_end else _values(match[4], 1, 31, "day"), from_end)


def _from_end(text: str) -> frozenset[int]:
    """Return which days, counted from the end of the month; a repetition goes on towards the end."""
    start, slash, step = text.partition("/")
    if not slash:
        return _values(text, 1, 31, "day")
    if not (start.isdecimal() and step.isdecimal() and int(step)) or not 1 <= int(start) <= 31:  # noqa: PLR2004
        raise Untranslatable(f"~{text} is no day")
    return frozenset(range(int(start), 0, -int(step)))


def _clock(word: str) -> tuple[frozenset[int], ...]:
    match = _TIME.fullmatch(word)
    if match is None:
        raise Untranslatable(f"{word!r} is no time")
    seconds = _values(match[3] or "0", 0, 59, "second")
    return _values(match[1], 0, 23, "hour"), _values(match[2], 0, 59, "minute"), seconds


def _values(text: str, first: int, last: int, unit: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None or any(group and "." in group for group in match.groups()):
            raise Untranslatable(f"{part!r} is no {unit} that batchd knows")
        step = int(match[3] or 0)
        low = first if match[1] == "*" else int(match[1])
        high = int(match[2]) if match[2] else last if match[1] == "*" or step else low
        if not first <= low <= last or high < low or (match[3] and not step):
            raise Untranslatable(f"{part!r} is no {unit}")
        found.update(range(low, min(high, last) + 1, step or 1))
    return frozenset(found)


def _stepped(values: frozenset[int], last: int) -> str:
    """Return the field, as `*/5` where it is one."""
    ordered = sorted(values)
    if len(ordered) > 2 and ordered[0] == 0:  # noqa: PLR2004
        step = ordered[1]
        if step > 1 and ordered == [*range(0, last + 1, step)]:
            return f"*/{step}"
    return as_field(values, 0, last)


def _stepped_days(values: frozenset[int]) -> str:
    ordered = sorted(values)
    step = ordered[1] - 1 if len(ordered) > 2 and ordered[0] == 1 else 0  # noqa: PLR2004
    return f"*/{step}" if step > 1 and ordered == [*range(1, 32, step)] else as_field(values, 1, 31)


def _is_zone(word: str) -> bool:
    if not word[0].isalpha() or word.lower() in _SHORTHANDS:
        return False
    if "/" not in word and word.upper() != word:
        return False
    try:
        zone_named(word)
    except ScheduleError:
        return False
    return True
