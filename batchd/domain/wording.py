"""Words for people, the same at a terminal and on a page: text made safe, durations, how far a run is."""

from __future__ import annotations

import unicodedata
from datetime import timedelta

_BREAKS = {"\n", "\r", "\t", "\v", "\f", "\x85", "\u2028", "\u2029"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_FULL_SECONDS = 10


def cleaned(text: object, *, keep: str = "") -> str:
    """Return the text without control, format and bidi characters, so that no stored text can move a terminal's cursor.

    Line breaks and tabs become spaces, but for those in `keep`.
    """
    return "".join(_safe(character, keep) for character in str(text))


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


def how_far(done: int | None, total: int | None, note: str | None) -> str | None:
    """Return how far a run is: "1,200 of 5,000 (24 %) users"; None when it never said."""
    if done is None:
        return note
    text = f"{done:,}"
    if total:
        text += f" of {total:,} ({min(100, 100 * done // total)} %)"
    return f"{text} {note}" if note else text


def _safe(character: str, keep: str) -> str:
    if character in keep:
        return character
    if character in _BREAKS:
        return " "
    return "" if unicodedata.category(character) in {"Cc", "Cf", "Cs"} else character
