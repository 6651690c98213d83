"""A schedule in words: what `15 3 * * *` means to a person."""

from __future__ import annotations

import re
from datetime import datetime

from cronsim import CronSim

_NAMED = {
    "@hourly": "At the start of every hour",
    "@daily": "Every day at midnight",
    "@midnight": "Every day at midnight",
    "@weekly": "Every Sunday at midnight",
    "@monthly": "On the first of every month at midnight",
    "@yearly": "Every year on January 1 at midnight",
    "@annually": "Every year on January 1 at midnight",
    "@reboot": "Whenever a daemon starts",
}
_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}
_INTERVAL = re.compile(r"(?:every\s+)((?:\d+\s*[smhdw]\s*)+)")
_PIECE = re.compile(r"(\d+)\s*([smhdw])")
_CRON_FIELDS = (5, 6)
_REFERENCE = datetime(2000, 1, 1)  # noqa: DTZ001 (a wall clock time: the words do not depend on it)


def in_words(schedule: str | None) -> str:
    """Return what a valid schedule says, without its time zone; None is a job that only a trigger runs."""
    if schedule is None:
        return "Only when triggered"
    text = " ".join(schedule.split())
    lowered = text.lower()
    if lowered in _NAMED:
        return _NAMED[lowered]
    if lowered.startswith("at "):
        return f"Once, at {text[3:].replace('T', ' ')}"
    if lowered.startswith("every "):
        return _every(lowered)
    if len(text.split()) in _CRON_FIELDS:
        return str(CronSim(text, _REFERENCE).explain())
    return text


def _every(text: str) -> str:
    interval = _INTERVAL.fullmatch(text)
    if interval is None:
        day, at, time = text.removeprefix("every ").partition(" at ")
        named = day if day[:1].isdigit() or day in {"day", "days", "weekday"} else day.capitalize()
        return f"Every {named}{at}{time}"
    pieces = [(int(number), _UNITS[unit]) for number, unit in _PIECE.findall(interval[1])]
    if len(pieces) == 1 and pieces[0][0] == 1:
        return f"Every {pieces[0][1]}"
    return "Every " + " ".join(f"{number} {unit}{'' if number == 1 else 's'}" for number, unit in pieces)
