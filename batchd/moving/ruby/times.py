"""When a Whenever job runs: `every 3.hours, at: 15` as cron fields, by the rules of Whenever's own cron.rb."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from batchd.moving.cron_fields import Untranslatable
from batchd.moving.ruby.syntax import Duration, Span, Symbol

_KEYWORDS = {"reboot", "yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"}
_UNITS = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000, "year": 31_557_600}
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CRON = re.compile(r"\S+(?:\s+\S+){4}")
_CLOCK = re.compile(
    r"(?<![\d:])(\d{1,2})(?::(\d{2}))?(?::\d{2})?\s*([ap])\.?m\b\.?|(?<![\d:])(\d{1,2}):(\d{2})", re.IGNORECASE
)
_WORDS = {"noon": 12, "midday": 12, "midnight": 0}
_MORNING = 6
"""Chronic takes a bare hour for one from 6 in the morning to 6 in the evening."""


@dataclass(frozen=True, slots=True)
class At:
    """A time of day, with the day that was named with it."""

    hour: int
    minute: int
    day: int | None = None
    month: int | None = None
    doubt: str = ""


def cron_of(time: Any, at: Any, *, hours24: bool = False) -> tuple[str, str]:
    """Return the schedule of `every time, at: at`, and what is doubtful about it; raises Untranslatable."""
    when = _at(at, hours24=hours24)
    doubt = when.doubt if isinstance(when, At) else ""
    if (
        isinstance(time, str)
        and not isinstance(time, Symbol)
        and (_CRON.fullmatch(time.strip()) or time.startswith("@"))
    ):
        said = "`at:` counts for nothing beside cron fields" if at is not None else ""
        return time.strip(), said
    if isinstance(time, Symbol) and str(time) in _KEYWORDS:
        if at is not None:
            raise Untranslatable(f"Whenever itself refuses `at:` with :{time}")
        return f"@{time}", ""
    if isinstance(time, Symbol) and str(time) in _UNITS:
        time = Duration(_UNITS[str(time)])
    if isinstance(time, int) and not isinstance(time, bool):
        time = Duration(time)
    if isinstance(time, Duration):
        return _fields(time.seconds, when), doubt
    if isinstance(time, str):
        return _by_day(time, when), doubt
    raise Untranslatable(f"only running the file could tell what {getattr(time, 'text', time)!r} is")


def _fields(seconds: int, at: At | int | Span) -> str:
    minute, hour = (at.minute, at.hour) if isinstance(at, At) else (0, 0)
    if seconds < _UNITS["minute"]:
        raise Untranslatable("Whenever itself refuses less than a minute")
    if seconds < _UNITS["hour"]:
        start = at if isinstance(at, int) else at.minute if isinstance(at, At) else 0
        return f"{_every(seconds // 60, 59, start)} * * * *"
    if seconds < _UNITS["day"]:
        start_minute = at.minute if isinstance(at, At) else _plain(at, 0, 59)
        return f"{start_minute} {_every(round(seconds / 3600), 23)} * * *"
    if seconds < _UNITS["month"]:
        start_hour = at.hour if isinstance(at, At) else _plain(at, 0, 23)
        return f"{minute} {start_hour} {_every(round(seconds / 86_400), 31, 1)} * *"
    day: int | str = (at.day or 1) if isinstance(at, At) else 1
    if seconds < _UNITS["year"]:
        day = day if isinstance(at, At) or at == 0 else _plain(at, 1, 31)
        return f"{minute} {hour} {day} {_every(round(seconds / _UNITS['month']), 12, 1)} *"
    if seconds == _UNITS["year"]:
        month = (at.month or 1) if isinstance(at, At) else 1 if at == 0 else _plain(at, 1, 12)
        return f"{minute} {hour} {day} {month} *"
    raise Untranslatable("Whenever itself refuses more than a year")


def _by_day(text: str, at: At | int | Span) -> str:
    minute, hour = (at.minute, at.hour) if isinstance(at, At) else (0, 0)
    lowered = text.lower()
    if "weekday" in lowered:
        return f"{minute} {hour} * * 1-5"
    if "weekend" in lowered:
        return f"{minute} {hour} * * 6,0"
    for number, day in enumerate(_DAYS):
        if day in lowered:
            return f"{minute} {hour} * * {number}"
    raise Untranslatable(f"Whenever itself does not know {text!r}")


def _every(frequency: int, last: int, start: int = 0) -> str:
    """Return Whenever's `comma_separated_timing`."""
    if frequency == 0:
        return str(start)
    if frequency == 1:
        return "*"
    if frequency > -(-last // 2):
        return str(frequency)
    first = start
    if (last + 1) % frequency and start <= 0:
        first += frequency
    most = round(last / frequency) + (start == 0)
    return ",".join(map(str, [*range(first, last + 1, frequency)][:most]))


def _plain(at: At | int | Span, low: int, high: int) -> str:
    first, last = (at.first, at.last) if isinstance(at, Span) else (at, at) if isinstance(at, int) else (0, 0)
    if not low <= first <= last <= high:
        raise Untranslatable(f"Whenever itself refuses this `at:`; it must be between {low} and {high}")
    return f"{first}-{last}" if isinstance(at, Span) else str(first)


def _at(at: Any, *, hours24: bool) -> At | int | Span:
    if at is None:
        return 0
    if isinstance(at, Span) or (isinstance(at, int) and not isinstance(at, bool)):
        return at
    if not isinstance(at, str):
        raise Untranslatable(f"only running the file could tell what `at: {getattr(at, 'text', at)}` is")
    lowered = at.lower()
    day, month = _day(lowered)
    for word, hour in _WORDS.items():
        if word in lowered:
            return At(hour, 0, day, month)
    match = _CLOCK.search(lowered)
    if match is None:
        raise Untranslatable(f"`at: {at!r}` is no time of day that batchd can read")
    if match[3]:
        hour, minute, doubt = int(match[1]) % 12 + (12 if match[3] == "p" else 0), int(match[2] or 0), ""
    else:
        hour, minute, doubt = _bare(match[4], int(match[5]), at, hours24=hours24)
    if hour > 23 or minute > 59:  # noqa: PLR2004
        raise Untranslatable(f"`at: {at!r}` is no time of day")
    return At(hour, minute, day, month, doubt)


def _bare(hours: str, minute: int, at: str, *, hours24: bool) -> tuple[int, int, str]:
    """Return the time that Chronic takes a clock without am or pm for: 4:30 is half past four in the afternoon."""
    hour = int(hours)
    if hours24 or hours.startswith("0") or not 1 <= hour < _MORNING:
        return hour, minute, ""
    return hour + 12, minute, f"Whenever takes `at: {at!r}` without am or pm for the afternoon: {hour + 12}:{minute:02}"


def _day(text: str) -> tuple[int | None, int | None]:
    match = re.search(rf"\b({'|'.join(_MONTHS)})[a-z]*\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)", text)
    if match:
        return int(match[2]), _MONTHS.index(match[1]) + 1
    match = re.search(r"\b(\d{1,2})/(\d{1,2})\b", text)
    return (int(match[2]), int(match[1])) if match else (None, None)
