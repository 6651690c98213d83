"""Text for people: stored text made safe for a terminal; moments, ages and durations in words."""

from __future__ import annotations

from datetime import datetime

from batchd.domain.wording import cleaned as cleaned
from batchd.domain.wording import span as span


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
