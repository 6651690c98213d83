"""Values as people read them. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Literal

from batchd.jobs.reports.content import Change, Sense

NumberStyle = Literal["1,234.5", "1.234,5", "1 234,5"]

NOTHING = "\u2013"
_MINUS = "\u2212"
_THIN = "\u202f"
_LONGEST_CELL = 400
_MOST_PERCENT = 1_000
_SWAPS: dict[str, dict[int, str]] = {
    "1,234.5": {},
    "1.234,5": str.maketrans({",": ".", ".": ","}),
    "1 234,5": str.maketrans({",": _THIN, ".": ","}),
}
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


@dataclass(frozen=True, slots=True)
class Formats:
    """How this report writes numbers and moments."""

    numbers: NumberStyle
    zone: tzinfo

    def number(self, value: float | Decimal, unit: str = "", decimals: int = 0) -> str:
        """Return the number with separators and its unit; "bytes" and "seconds" are units that scale by themselves."""
        if unit == "bytes":
            return self._bytes(float(value))
        if unit == "seconds":
            return duration(timedelta(seconds=float(value)))
        text = f"{value:,.{decimals}f}".translate(_SWAPS[self.numbers])
        return f"{text}\u00a0{unit}" if unit else text

    def cell(self, value: object, unit: str = "", decimals: int = 0) -> str:
        """Return any value of a row as text."""
        match value:
            case None:
                return NOTHING
            case bool():
                return "yes" if value else "no"
            case int() | float() | Decimal():
                return self.number(value, unit, decimals)
            case datetime():
                return self.moment(value)
            case date() | time():
                return value.isoformat()
            case timedelta():
                return duration(value)
            case bytes() | memoryview():
                return _cut(bytes(value).hex())
            case dict() | list():
                return _cut(json.dumps(value, default=str, ensure_ascii=False))
        return _cut(str(value))

    def moment(self, at: datetime) -> str:
        """Return the moment in the report's time zone, to the minute unless it has seconds."""
        local = at.astimezone(self.zone) if at.tzinfo else at
        shown = "%Y-%m-%d %H:%M:%S" if local.second else "%Y-%m-%d %H:%M"
        return local.strftime(shown)

    def change(self, now: float, before: float, good: str, unit: str = "", decimals: int = 0) -> Change:
        """Return how a figure moved; `good` is the welcome direction: "up", "down" or "neutral"."""
        was = self.number(before, unit, decimals)
        if now == before:
            return Change("=", "no change", Sense.NEUTRAL, was)
        is_up = now > before
        sense = Sense.NEUTRAL if good == "neutral" else Sense.GOOD if is_up == (good == "up") else Sense.BAD
        sign = "+" if is_up else _MINUS
        percent = abs(now - before) / abs(before) * 100 if before else None
        if percent is None or percent >= _MOST_PERCENT:
            text = sign + self.number(abs(now - before), unit, decimals)
        else:
            text = f"{sign}{self.number(percent, '', 1 if percent < 100 else 0)}\u00a0%"  # noqa: PLR2004 (two digits)
        return Change("▲" if is_up else "▼", text, sense, was)

    def _bytes(self, value: float) -> str:
        for unit in ("bytes", "kB", "MB", "GB", "TB"):
            if abs(value) < 1000 or unit == "TB":  # noqa: PLR2004 (decimal units)
                decimals = 0 if unit == "bytes" else 1
                return f"{value:,.{decimals}f}".translate(_SWAPS[self.numbers]) + f"\u00a0{unit}"
            value /= 1000
        raise AssertionError(value)


def is_number(value: object) -> bool:
    """Return whether the value counts; a truth value does not."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Return whether the value is a number that can be compared and drawn: neither NaN nor infinite."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value)


def is_number_column(values: Iterable[object]) -> bool:
    """Return whether all values that are there are numbers, and there is one."""
    there = [value for value in values if value is not None]
    return bool(there) and all(is_number(value) for value in there)


def decimals_of(values: Iterable[object]) -> int:
    """Return how many decimals a column needs so that its numbers stand under each other: none or two."""
    numbers = [value for value in values if isinstance(value, float | Decimal) and math.isfinite(value)]
    return 2 if any(value % 1 != 0 for value in numbers) else 0


def duration(length: timedelta) -> str:
    """Return a duration in at most two units: "85 ms", "2.4 s", "3m 20s", "2h 5m"."""
    seconds = length.total_seconds()
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}\u00a0ms"
    if 0 < seconds < 10:  # noqa: PLR2004 (one digit)
        return f"{seconds:.1f}\u00a0s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}\u00a0s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m\u00a0{whole % _MINUTE}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h\u00a0{whole % _HOUR // _MINUTE}m"
    return f"{whole // _DAY}d\u00a0{whole % _DAY // _HOUR}h"


def humanised(name: str) -> str:
    """Return a column's or query's name as a heading: `new_users` is "New users"."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _cut(text: str) -> str:
    visible = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
    return visible if len(visible) <= _LONGEST_CELL else visible[: _LONGEST_CELL - 1] + "…"
