"""The daemon's state as a sentence that a person understands: systemd's STATUS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Situation:
    """What a serving daemon is at. `troubles` are whole phrases, the worst first."""

    jobs: int
    running: int
    next_job: str | None
    next_at: datetime | None
    troubles: tuple[str, ...] = ()


def serving(now: Situation, at: datetime) -> str:
    """Return "12 jobs, 2 running, next daily-report in 3 h 12 min", and behind it what is wrong."""
    parts = [f"{now.jobs} job{'' if now.jobs == 1 else 's'}"]
    if now.running:
        parts.append(f"{now.running} running")
    if now.next_job is not None and now.next_at is not None:
        parts.append(f"next {now.next_job} {_until(now.next_at - at)}")
    return "; ".join((", ".join(parts), *now.troubles))


def draining(runs: Sequence[tuple[str, int]]) -> str:
    """Return what a stopping daemon waits for: the jobs, with the numbers of their runs."""
    if not runs:
        return "stopping"
    named = [f"{job} (run {run_id})" for job, run_id in runs[:_MOST_NAMED]]
    more = len(runs) - len(named)
    return f"stopping, waiting for {', '.join(named)}{f' and {more} more' if more else ''}"


def _until(span: timedelta) -> str:
    """Return how long it is, no finer than minutes: a line that changed every second would tell nothing more."""
    seconds = span.total_seconds()
    if seconds < _MINUTE:
        return "in less than a minute" if seconds > -_MINUTE else "overdue"
    for size, unit, smaller, smaller_unit in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min")):
        if seconds >= size:
            whole, rest = int(seconds // size), int(seconds % size // smaller)
            return f"in {whole} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"in {int(seconds // _MINUTE)} min"
