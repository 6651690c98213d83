"""The next 24 hours as tracks, one for each of the jobs that fire soonest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from markupsafe import Markup

from batchd.domain.schedule import Rule, ScheduleError, parse_schedule
from batchd.domain.schedule_words import in_words
from batchd.store.overview import Coming
from batchd.web.charts.timeline import dense_track, track

SPAN = timedelta(hours=24)
MARKS = 9
"""How many hours are written under a track: every three."""

_MOST_DOTS = 48


@dataclass(frozen=True, slots=True)
class Track:
    """One job's fires: `count` in the next 24 hours, and the schedule in words."""

    job: str
    timezone: str
    next_run_at: datetime
    words: str
    count: int
    chart: Markup


def tracks(coming: Sequence[Coming], now: datetime) -> list[Track]:
    """Return the tracks; a job whose schedule cannot be read has only its next fire."""
    return [_track(each, now) for each in coming]


def hour_marks(start: datetime, zone: str, *, step: timedelta = SPAN / (MARKS - 1), count: int = MARKS) -> list[str]:
    """Return the times of day under a chart that begins at `start`."""
    return [f"{(start + place * step).astimezone(ZoneInfo(zone)):%H:%M}" for place in range(count)]


def _track(each: Coming, now: datetime) -> Track:
    try:
        rule: Rule | None = parse_schedule(each.schedule, each.timezone)
        words = in_words(each.schedule)
    except ScheduleError:
        rule, words = None, each.schedule
    end = now + SPAN
    first = max(each.next_run_at, now)
    later = 0 if rule is None or first > end else rule.count_between(first, end)
    count = later + (first <= end)
    label = f"{each.job}: {count} {'fire' if count == 1 else 'fires'} in the next 24 hours"
    if count > _MOST_DOTS:
        chart = dense_track(now, first, SPAN, label)
    else:
        fires = [first, *(rule.fires_between(first, end) if rule is not None and later else ())]
        chart = track(fires, now, SPAN, each.took, label)
    return Track(each.job, each.timezone, each.next_run_at, words, count, chart)
