"""A strip with its name and what came of the day in a word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from batchd.store.job_history import Strip
from batchd.store.overview import STRIP_PART, STRIP_PARTS
from batchd.web.pages.timeline_view import MARKS, hour_marks

_BAD = ("failed", "quarantined", "missed")


@dataclass(frozen=True, slots=True)
class StripView:
    """One job's strip; `share` is how much of it succeeded."""

    job: str
    chart: Markup
    share: str

    @classmethod
    def of(cls, found: Strip, chart: Markup) -> StripView:
        """Return the strip with its share in words."""
        good = sum(part.get("succeeded", 0) for part in found.parts)
        bad = sum(part.get(state, 0) for part in found.parts for state in _BAD)
        if not good + bad:
            return cls(found.job, chart, "–")  # noqa: RUF001 (a dash for nothing)
        return cls(found.job, chart, f"{100 * good / (good + bad):.1f} %".replace(".0 %", " %"))


def past_hours(start: datetime, zone: str) -> list[str]:
    """Return the times of day under a strip."""
    return hour_marks(start, zone, step=STRIP_PART * STRIP_PARTS / (MARKS - 1))
