"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_LONGEST_DAYS = 100_000
"""273 years: what the clock, a wait of a thread and every database can still add to now."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)", re.IGNORECASE)
_LARGEST_SIZE = 2**62
_SIZE_UNITS: dict[str, int] = {"": 1, "b": 1}
for _power, _prefix in enumerate("kmgt", start=1):
    _SIZE_UNITS |= {_prefix + suffix: 1000**_power for suffix in ("", "b")}
    _SIZE_UNITS |= {_prefix + suffix: 1024**_power for suffix in ("i", "ib")}


class DurationTooLong(ValueError):
    """A duration that nothing could be added to or taken from a date any more."""


def parse_duration(text: object) -> timedelta:
    """Return the duration that a text such as "90s", "5m", "1h30m" or "30d" means; raises ValueError with advice."""
    advice = 'write a number and a unit (ms, s, m, h, d, w), for example "90s", "5m" or "30d"'
    if not isinstance(text, str):
        raise ValueError(f"not a duration: {text!r}; {advice}")  # noqa: TRY004 (pydantic collects ValueErrors)
    compact = text.strip().lower()
    parts = _PART.findall(compact)
    if not parts or _PART.sub("", compact).strip():
        raise ValueError(f"not a duration: {text!r}; {advice}")
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST_DAYS * _UNIT_SECONDS["d"]:
        raise DurationTooLong(f"duration too long: {text!r}; the longest is {_LONGEST_DAYS}d")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Return the duration in the largest units that say it exactly: "5m", "1h30m", "250ms"."""
    left = round(duration / timedelta(milliseconds=1))
    if left < 0:
        return "-" + format_duration(-duration)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: object) -> int:
    """Return the bytes that a text such as "64MB" (decimal) or "1GiB" (binary) means; raises ValueError with advice."""
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'not a size: {text!r}; write a number and a unit, for example "64MB" or "1GiB"')
    size = float(match[1]) * _SIZE_UNITS[match[2].lower()]
    if size > _LARGEST_SIZE:
        raise ValueError(f"size too large: {text!r}")
    return round(size)
