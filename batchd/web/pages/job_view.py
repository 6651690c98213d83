"""The charts and tables of a job's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any

from batchd.domain.wording import span
from batchd.store.job_history import Amounts, Part
from batchd.web.charts.amounts import amounts, highest_amount
from batchd.web.charts.calendar import calendar
from batchd.web.charts.durations import durations, highest_duration
from batchd.web.charts.svg import counts_text
from batchd.web.pages.words import grouped

RANGES: Mapping[str, tuple[str, timedelta, int]] = {
    "24h": ("24 hours", timedelta(hours=24), 24),
    "7d": ("7 days", timedelta(days=7), 28),
    "30d": ("30 days", timedelta(days=30), 30),
    "90d": ("90 days", timedelta(days=90), 45),
}
"""What can be chosen: its name, how long it is, and into how many parts a chart divides it."""

CALENDAR_WEEKS = 13
_HOURS_IN_LABELS_UP_TO = timedelta(days=2)
_AXIS_MARKS = 5
_BAD = ("failed", "quarantined", "missed")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a chart's table."""

    name: str
    total: int
    median: timedelta | None = None
    p95: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the calendar's table."""

    iso: str
    name: str
    said: str


def edges_of(chosen: str, now: datetime) -> list[datetime]:
    """Return where the parts of the chosen range begin and end, up to now."""
    _, length, parts = RANGES[chosen]
    return [now - length + place * length / parts for place in range(parts + 1)]


def day_edges(now: datetime, zone: tzinfo) -> list[datetime]:
    """Return the beginnings of the calendar's days in the zone, the end of today last: days may have 23 or 25 hours."""
    today = now.astimezone(zone).date()
    first = today - timedelta(days=today.weekday() + 7 * (CALENDAR_WEEKS - 1))
    days = (today - first).days + 2
    return [datetime.combine(first + timedelta(days=place), time(), zone) for place in range(days)]


def duration_values(parts: Sequence[Part], chosen: str, zone: tzinfo) -> dict[str, Any]:
    """Return what the page says of durations; no chart when nothing ended."""
    names = [_part_name(part.start, chosen, zone) for part in parts]
    shown = [part for part in parts if part.median is not None]
    if not shown:
        return {"durations": None}
    titles = [
        f"{name}: median {span(part.median)}, p95 {span(part.p95)}, {counts_text(part.states)}"
        for name, part in zip(names, parts, strict=True)
    ]
    newest = shown[-1]
    label = (
        f"Durations of the last {RANGES[chosen][0]}: median {span(newest.median)}, p95 {span(newest.p95)} at the end"
    )
    top = highest_duration(parts)
    return {
        "durations": durations(parts, titles, label),
        "duration_top": top,
        "duration_middle": top / 2,
        "duration_rows": [
            Row(name, part.total, part.median, part.p95) for name, part in zip(names, parts, strict=True) if part.total
        ],
    }


def amount_values(found: Sequence[Amounts], edges: Sequence[datetime], chosen: str, zone: tzinfo) -> dict[str, Any]:
    """Return what the page says of rows processed; no chart when no run said anything."""
    sums = [0] * (len(edges) - 1)
    for each in found:
        place = int((each.finished_at - edges[0]) / (edges[1] - edges[0]))
        if 0 <= place < len(sums):
            sums[place] += each.total
    if not any(sums):
        return {"amounts": None}
    names = [_part_name(start, chosen, zone) for start in edges[:-1]]
    titles = [f"{name}: {grouped(amount)} rows" for name, amount in zip(names, sums, strict=True)]
    kinds = sorted({key for each in found for key in each.counts})
    top = highest_amount(sums)
    return {
        "amounts": amounts(sums, titles, f"Rows processed in the last {RANGES[chosen][0]}: {grouped(sum(sums))}"),
        "amount_top": top,
        "amount_middle": top / 2,
        "amount_words": f"{', '.join(key.replace('_', ' ') for key in kinds)}; {grouped(sum(sums))} in all",
        "amount_rows": [Row(name, amount) for name, amount in zip(names, sums, strict=True) if amount],
    }


def calendar_values(parts: Sequence[Part]) -> dict[str, Any]:
    """Return the calendar, its table (newest first) and its sum in words; the parts are days."""
    first: date = parts[0].start.date()
    good = sum(part.states.get("succeeded", 0) for part in parts)
    bad = sum(part.states.get(state, 0) for part in parts for state in _BAD)
    words = f"{100 * good / (good + bad):.1f} % succeeded".replace(".0 %", " %") if good + bad else "no runs"
    days = [
        Day(
            part.start.date().isoformat(), f"{part.start:%a} {part.start.day} {part.start:%b}", counts_text(part.states)
        )
        for part in reversed(parts)
        if part.total
    ]
    label = f"The last {CALENDAR_WEEKS} weeks: {good:,} succeeded, {bad:,} failed or missed"
    return {"calendar": calendar(first, [part.states for part in parts], label), "days": days, "success_words": words}


def axis_marks(edges: Sequence[datetime], chosen: str, zone: tzinfo) -> list[str]:
    """Return the labels under a chart."""
    step = (edges[-1] - edges[0]) / (_AXIS_MARKS - 1)
    return [_part_name(edges[0] + place * step, chosen, zone, short=True) for place in range(_AXIS_MARKS)]


def _part_name(start: datetime, chosen: str, zone: tzinfo, *, short: bool = False) -> str:
    there = start.astimezone(zone)
    if RANGES[chosen][1] <= _HOURS_IN_LABELS_UP_TO:
        return f"{there:%H:%M}"
    day = f"{there.day} {there:%b}"
    return day if short or RANGES[chosen][2] == RANGES[chosen][1].days else f"{day}, {there:%H:%M}"
