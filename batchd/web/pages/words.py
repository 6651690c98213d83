"""The filters of the templates: moments, ages, numbers and stored text as people read them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from batchd.domain.wording import cleaned, how_far, span

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_ONE_DECIMAL_BELOW = 10
_SHORT = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Going(Protocol):
    """What is needed of a run to say how far and how fast it is."""

    @property
    def progress_done(self) -> int | None: ...  # noqa: D102
    @property
    def progress_total(self) -> int | None: ...  # noqa: D102
    @property
    def progress_note(self) -> str | None: ...  # noqa: D102
    @property
    def started_at(self) -> datetime | None: ...  # noqa: D102


def iso(moment: datetime) -> str:
    """Return the moment as machines read it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local(moment: datetime, zone: str) -> str:
    """Return the moment in the zone, to the minute, or to the second where it is not a whole minute."""
    there = moment.astimezone(ZoneInfo(zone))
    return f"{there:%Y-%m-%d %H:%M:%S}" if there.second else f"{there:%Y-%m-%d %H:%M}"


def full(moment: datetime, zone: str) -> str:
    """Return the moment to the second with its offset, for a tooltip."""
    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S %Z}"


def wall(moment: datetime) -> str:
    """Return a moment that is local already: "Thu 26 Nov, 03:15 CET"."""
    clock = f"{moment:%H:%M:%S}" if moment.second else f"{moment:%H:%M}"
    return f"{moment:%a} {moment.day} {moment:%b}, {clock} {moment:%Z}"


def clock(moment: datetime, zone: str) -> str:
    """Return the time of day to the millisecond, for a log."""
    there = moment.astimezone(ZoneInfo(zone))
    return f"{there:%H:%M:%S}.{there.microsecond // 1000:03}"


def ago(moment: datetime, now: datetime) -> str:
    """Return how far the moment is, roughly: "12s ago", "in 3h"; the page's script says it the same way."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{_rough(seconds)} ago" if seconds > 0 else f"in {_rough(-seconds)}"


def grouped(number: object) -> str:
    """Return a number with its thousands marked."""
    return f"{number:,}" if isinstance(number, int) else str(number)


def short(number: float) -> str:
    """Return a number for an axis: "1.5k", "2M"."""
    for size, letter in _SHORT:
        if number >= size:
            return f"{number / size:.1f}".rstrip("0").rstrip(".") + letter
    return f"{number:.0f}"


def seconds(count: float) -> str:
    """Return a number of seconds as a duration."""
    return span(timedelta(seconds=round(count)))


def words(constant: str) -> str:
    """Return a machine's constant as words: "lost_too_often" is "lost too often"."""
    return constant.replace("_", " ").replace(".", " ")


def clean(text: object) -> str:
    """Return stored text on one line."""
    return cleaned(text)


def clean_lines(text: object) -> str:
    """Return stored text with its lines and tabs."""
    return cleaned(text, keep="\n\t")


def css(word: object) -> str:
    """Return a word that may stand in a class attribute."""
    return re.sub(r"[^a-z0-9-]", "", str(word).lower())


def shown(value: object) -> str:
    """Return a plain value of a result."""
    if value is None:
        return "–"  # noqa: RUF001 (a dash for nothing)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return cleaned(value)


def pretty(value: object) -> str:
    """Return JSON for people."""
    return clean_lines(json.dumps(value, indent=2, ensure_ascii=False))


def one_line_json(value: object) -> str:
    """Return JSON on one line; nothing for None."""
    return "" if value is None else cleaned(json.dumps(value, ensure_ascii=False))


def progress_text(run: Going) -> str:
    """Return how far the run is."""
    return cleaned(how_far(run.progress_done, run.progress_total, run.progress_note) or "")


def pace_text(run: Going, now: datetime) -> str:
    """Return how fast the run has been on average, and how long the rest takes at that pace: " · 200/s, 40s left"."""
    if not run.progress_done or run.started_at is None:
        return ""
    passed = (now - run.started_at).total_seconds()
    if passed < 1:
        return ""
    rate = run.progress_done / passed
    text = f" · {rate:,.1f}/s" if rate < _ONE_DECIMAL_BELOW else f" · {rate:,.0f}/s"
    if run.progress_total and rate > 0:
        text += f", {seconds(max(0, run.progress_total - run.progress_done) / rate)} left"
    return text


def _rough(length: float) -> str:
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if length >= (2 * size if unit == "d" else size):
            return f"{int(length // size)}{unit}"
    return f"{int(length)}s"


def span_or_dash(length: timedelta | None) -> str:
    """Return a duration; a dash for none."""
    return "–" if length is None else span(length)  # noqa: RUF001 (a dash for nothing)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "ago": ago,
    "clean": clean,
    "clean_lines": clean_lines,
    "clock": clock,
    "css": css,
    "full": full,
    "grouped": grouped,
    "iso": iso,
    "json": one_line_json,
    "local": local,
    "pace_text": pace_text,
    "pretty": pretty,
    "progress_text": progress_text,
    "seconds": seconds,
    "short": short,
    "shown": shown,
    "span": span_or_dash,
    "wall": wall,
    "words": words,
}
