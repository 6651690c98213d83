"""The coming fire times of a rule, as a person wants to see them: local, UTC, and where the clock changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from batchd.domain.job import JobDefinition
from batchd.domain.quantities import format_duration
from batchd.domain.schedule import Rule, parse_schedule


@dataclass(frozen=True, slots=True)
class FirePreview:
    """One fire time; `note` says that the offset has changed since the one before, or None."""

    utc: datetime
    local: datetime
    note: str | None


def preview(rule: Rule, timezone: str, start: datetime, count: int) -> tuple[FirePreview, ...]:
    """Return up to `count` fire times after the aware moment `start`."""
    zone = ZoneInfo(timezone)
    offset = _offset(start, zone)
    found: list[FirePreview] = []
    moment = start
    while len(found) < count and (fire := rule.next_after(moment)) is not None:
        now_offset = _offset(fire, zone)
        found.append(FirePreview(fire.astimezone(UTC), fire.astimezone(zone), _change(offset, now_offset)))
        moment, offset = fire, now_offset
    return tuple(found)


def fires_of(job: JobDefinition, after: datetime, count: int) -> tuple[FirePreview, ...]:
    """Return up to `count` fire times of the job after a moment, which is local to the job when it names no zone."""
    if job.schedule is None or not job.enabled:
        return ()
    if after.tzinfo is None:
        after = after.replace(tzinfo=ZoneInfo(job.timezone))
    return preview(parse_schedule(job.schedule, job.timezone), job.timezone, after, count)


def _change(before: timedelta, after: timedelta) -> str | None:
    if before == after:
        return None
    word = "forward" if after > before else "back"
    return f"the clock went {word} {format_duration(abs(after - before))} before this"


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)
