"""Text for people: stored text made safe for a terminal; moments, ages and durations in words."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta

_BREAKS = {"\n", "\r", "\t", "\v", "\f", "\x85", "\u2028", "\u2029"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_FULL_SECONDS = 10


def cleaned(text: object, *, keep: str = "") -> str:
    """Return the text without control, format and bidi characters, so that no stored text can move a terminal's cursor.

    Line breaks and tabs become spaces, but for those in `keep`.
    """
    return "".join(_safe(character, keep) for character in str(text))


def counted(number: int, noun: str) -> str:
    """Return the number with its noun: "1 job", "3 jobs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def moment(at: datetime | None) -> str:
    """Return the moment in the machine's local time with its offset; "-" for none."""
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def distance(at: datetime | None, now: datetime) -> str:
    """Return how far the moment is from now: "in 5m", "3h ago"; "-" for none."""
    if at is None:
        return "-"
    if at >= now:
        return f"in {span(at - now)}"
    return f"{span(now - at)} ago"


def span(length: timedelta | None) -> str:
    """Return a duration in at most two units: "0.25s", "12s", "3m 20s", "2d 4h"; "-" for none."""
    if length is None:
        return "-"
    seconds = length.total_seconds()
    if seconds < _FULL_SECONDS:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    for size, unit, smaller, smaller_unit in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "m"),
        (_MINUTE, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f" {rest}{smaller_unit}" if rest else "")
    raise AssertionError(whole)


def _safe(character: str, keep: str) -> str:
    if character in keep:
        return character
    if character in _BREAKS:
        return " "
    return "" if unicodedata.category(character) in {"Cc", "Cf", "Cs"} else character
