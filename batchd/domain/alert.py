"""When something is wrong enough to tell somebody, and when it is well again: decisions only.

    what happened, or did not      ──► a rule of the job ──► an incident, one at a time for each rule and subject
    what shows that it is well     ──► the incident closes
    both                           ──► told to the channels: grouped, not too often, not at night

An incident is opened once however often it is seen again; what is seen again counts up in it. It closes by what shows
the opposite: a success closes `failed`, rows close `too_quiet`, a heartbeat closes `daemon_lost`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from batchd.domain.quantities import format_duration
from batchd.domain.schedule import Rule

_FEWEST_DURATIONS = 20
_FEWEST_COUNTS = 5
_FIRST_PAUSE = timedelta(seconds=2)
_LONGEST_PAUSE = timedelta(minutes=10)
_MOST_DOUBLINGS = 20
_WINDOW = re.compile(r"\s*(\d{1,2}):(\d{2})\s*(?:-|to|–)\s*(\d{1,2}):(\d{2})\s*")  # noqa: RUF001 (people paste an en dash)
_DAY = timedelta(days=1)


class AlertRule(enum.StrEnum):
    """What can be wrong."""

    FAILED = "failed"
    FIRST_FAILURE = "first_failure"
    MISSED = "missed"
    TOO_LONG = "too_long"
    TOO_QUIET = "too_quiet"
    QUARANTINED = "quarantined"
    DAEMON_LOST = "daemon_lost"
    QUEUE_LATENCY = "queue_latency"


RECOVERED = "recovered"
"""The word beside the rules: tell when an incident closes."""

OF_RUNS = frozenset({AlertRule.FAILED, AlertRule.FIRST_FAILURE, AlertRule.QUARANTINED})
"""What is wrong with one run, and over when that run is put away by hand."""

TELL_NO_SUCCESS = frozenset({AlertRule.MISSED, AlertRule.FAILED, AlertRule.QUARANTINED})
"""Who was told one of these need not be told that there was no success."""


class Told(enum.StrEnum):
    """What an alert says of its incident; the last three are pings, which are about a run."""

    OPENED = "opened"
    REMINDER = "reminder"
    RECOVERED = "recovered"
    TEST = "test"
    START = "start"
    SUCCESS = "success"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """What of a job, a queue or a daemon is told, and to which channels.

    `grace` is how long after a fire time there may be no success. A run is too long beyond `max_duration`, or beyond
    `p99_factor` times what 99 of 100 runs took, but never below `p99_least`; None is no such limit.
    """

    on: frozenset[AlertRule]
    tells_recovery: bool
    to: tuple[str, ...]
    grace: timedelta
    max_duration: timedelta | None
    p99_factor: float | None
    p99_least: timedelta

    def wants(self, rule: AlertRule) -> bool:
        """Return whether the rule holds."""
        return rule in self.on


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From one time of the day to another, over midnight if need be, by the clock of a zone."""

    begin: time
    end: time
    zone: tzinfo

    def end_after(self, now: datetime) -> datetime | None:
        """Return when the quiet hours that hold now are over, in UTC; None when it is not quiet."""
        local = now.astimezone(self.zone)
        wall = local.time()
        is_over_midnight = self.begin > self.end
        is_quiet = wall >= self.begin or wall < self.end if is_over_midnight else self.begin <= wall < self.end
        if not is_quiet:
            return None
        day = local.date() + _DAY if is_over_midnight and wall >= self.begin else local.date()
        return datetime.combine(day, self.end, self.zone).astimezone(UTC)


def parse_quiet_hours(text: str, timezone: str) -> QuietHours:
    """Return what "22:00-07:00" means; raises ValueError for hours that there are not, or that never end."""
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise ValueError(f'not quiet hours: {text!r}; write "22:00-07:00"')
    try:
        begin, end = (time(int(hour), int(minute)) for hour, minute in (match.groups()[:2], match.groups()[2:]))
    except ValueError:
        raise ValueError(f"{text!r} has a time that no clock shows; hours are 00 to 23, minutes 00 to 59") from None
    if begin == end:
        raise ValueError(f"{text!r} would be quiet all day; take the channel out of `to` instead")
    return QuietHours(begin, end, ZoneInfo(timezone))


def overdue_fire(rule: Rule, since: datetime, now: datetime, grace: timedelta) -> datetime | None:
    """Return the first fire time after `since` if it is longer ago than the grace, else None.

    `since` is when the last run that succeeded began, or when the job became known: a success serves every fire time
    before its start.
    """
    fire = rule.next_after(since)
    return fire if fire is not None and fire + grace < now else None


def duration_limit(policy: AlertPolicy, durations: Sequence[float]) -> timedelta | None:
    """Return how long a run may take; `durations` are the seconds of the last runs that succeeded, in any order.

    The job's own p99 counts when there are enough of them. The lower of the two limits holds.
    """
    limits = [] if policy.max_duration is None else [policy.max_duration]
    if policy.p99_factor is not None and len(durations) >= _FEWEST_DURATIONS:
        own = timedelta(seconds=percentile(durations, 0.99) * policy.p99_factor)
        limits.append(max(own, policy.p99_least))
    return min(limits, default=None)


def is_short(policy: AlertPolicy, took: timedelta) -> bool:
    """Return whether a run that took so long is within its limit whatever the last runs took."""
    is_within = policy.max_duration is None or took <= policy.max_duration
    return is_within and (policy.p99_factor is None or took <= policy.p99_least)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below or at which the share of the values lies (nearest rank); the values must not be empty."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[min(int(rank), len(ordered)) - 1]


def is_too_quiet(rows: int | None, before: Sequence[int | None]) -> bool:
    """Return whether a run of no rows is unusual: each of the last successes, of which there are enough, had some."""
    return not rows and len(before) >= _FEWEST_COUNTS and all(before)


def pause_after(failures: int) -> timedelta:
    """Return how long a channel rests after so many failures in a row (from 1): 2 s, 4 s, … 10 min."""
    return min(_FIRST_PAUSE * (1 << min(failures - 1, _MOST_DOUBLINGS)), _LONGEST_PAUSE)


def incident_key(rule: AlertRule, subject: str) -> str:
    """Return what at most one open incident has."""
    return f"{rule.value}:{subject}"


def spoken(duration: timedelta) -> str:
    """Return the duration as people say it: whole seconds below a day, then whole minutes."""
    step = timedelta(minutes=1) if duration >= _DAY else timedelta(seconds=1)
    whole = max(step, round(duration / step) * step) if duration >= timedelta(seconds=1) else duration
    return format_duration(whole)
