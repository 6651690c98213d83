"""What to do about the fire times since a schedule was last planned.

A *misfire* is a fire time that passed unserved: the daemon was down, the store was away, the laptop slept.

    last planned        next_run_at                             now
        ●───────────────────○─────────○─────────○─────────○──────┼──────○─────► time
                            └──────── misfires ─────┘     │             └ next_run_at afterwards
                                                          └ the latest
    once   the latest runs; those before it become one `missed` row with their count and range
    skip   as once, but the latest must not be older than its start deadline (60 s if the job says nothing)
    all    every one runs, newest first within the caps; what the caps cut off becomes the `missed` row

Nothing is ever left out of the account: due fires and the missed range together are exactly the fire times from
`next_run_at` to now.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from batchd.domain.job import CatchUp, CatchUpPolicy
from batchd.domain.schedule import Rule

SKIP_DEADLINE = timedelta(seconds=60)

_WINDOWS = tuple(timedelta(seconds=60 * 8**power) for power in range(12))
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class MissedRange:
    """Fire times that will not run: `count` of them, from `first` to `last`."""

    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True, slots=True)
class FirePlan:
    """The fires to run, oldest first, the one range that is not, and when to look again."""

    due: tuple[datetime, ...]
    missed: MissedRange | None
    next_run_at: datetime | None


def plan_fires(
    rule: Rule, *, next_run_at: datetime, now: datetime, policy: CatchUpPolicy, start_deadline: timedelta | None
) -> FirePlan:
    """Return what to do about the fire times from `next_run_at` up to `now`; takes milliseconds for any range.

    When `next_run_at` is still ahead (the clock stepped back), nothing is due and it stays.
    """
    if next_run_at > now:
        return FirePlan((), None, next_run_at)
    wanted = policy.max_runs if policy.mode is CatchUp.ALL else 1
    due = _newest(rule, next_run_at, now, wanted)
    latest = due[-1]
    deadline = SKIP_DEADLINE if policy.mode is CatchUp.SKIP and start_deadline is None else start_deadline
    oldest_allowed = now - deadline if deadline is not None else None
    if policy.mode is CatchUp.ALL:
        by_age = now - policy.max_age
        oldest_allowed = by_age if oldest_allowed is None else max(by_age, oldest_allowed)
    kept = tuple(fire for fire in due if oldest_allowed is None or fire >= oldest_allowed)
    return FirePlan(kept, _missed(rule, next_run_at, kept[0] if kept else None, latest), rule.next_after(now))


def owed(rule: Rule, first: datetime, end: datetime) -> MissedRange:
    """Return all fire times from `first`, which is one, up to `end`."""
    return MissedRange(first, _newest(rule, first, end, 1)[-1], 1 + rule.count_between(first, end))


def _newest(rule: Rule, first: datetime, now: datetime, limit: int) -> list[datetime]:
    """Return the newest fires from `first` to `now`, at least one (`first` itself is one), at most `limit`."""
    for window in _WINDOWS:
        start = now - window
        if start < first:
            break
        found = deque(rule.fires_between(start, now), maxlen=limit)
        if len(found) == limit:
            return list(found)
    newest = deque([first], maxlen=limit)
    newest.extend(rule.fires_between(first, now))
    return list(newest)


def _missed(rule: Rule, first: datetime, kept_from: datetime | None, latest: datetime) -> MissedRange | None:
    """Return the range from `first` up to what is kept (or up to `latest` when nothing is)."""
    if kept_from == first:
        return None
    return owed(rule, first, latest if kept_from is None else kept_from - _MICROSECOND)
