"""What the daemon counts while it works, for /metrics: plain numbers, so that no library for it is imported here.

Counters begin at nought with the process, as Prometheus expects. Any thread may call any method.
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from batchd.clock import SystemClock

DURATION_BUCKETS = (0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)
DELAY_BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)
MOST_HISTOGRAMS = 500
"""Jobs with a histogram of their own; beyond them, a job has its counters only."""


@dataclass(slots=True)
class Histogram:
    """Observations in seconds: how many fell into each bucket (the last one is open), their number and sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect.bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def snapshot(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "total": self.total}


OTHER = "(other)"
"""The label of what is no job of the config: runs of a bare kind, and of jobs that are gone."""


class Meters:
    """Counters by job; each job of the config is there from the beginning, with nought."""

    def __init__(self, jobs: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._ended: Counter[tuple[str, str, str]] = Counter()
        self._by_job: dict[str, Counter[str]] = {}
        self._durations: dict[str, Histogram] = {}
        self._delays = Histogram(DELAY_BUCKETS)
        self._lost = 0
        self._config = {"successful": 1, "at": SystemClock().now().timestamp()}
        self.know(jobs)

    def know(self, jobs: Iterable[str]) -> None:
        """Have these jobs and no others, after a reload; what they had before stays."""
        with self._lock:
            names = {*jobs, OTHER}
            for gone in self._by_job.keys() - names:
                del self._by_job[gone]
                self._durations.pop(gone, None)
                for labels in [labels for labels in self._ended if labels[0] == gone]:
                    del self._ended[labels]
            for name in sorted(names - self._by_job.keys()):
                self._by_job[name] = Counter(retries=0, missed=0, skipped=0, rows=0)
                if len(self._durations) < MOST_HISTOGRAMS:
                    self._durations[name] = Histogram(DURATION_BUCKETS)

    def config_loaded(self, at: datetime, *, successful: bool) -> None:
        """Remember how the last reload of the config went, and when the last good one was."""
        with self._lock:
            self._config["successful"] = int(successful)
            if successful:
                self._config["at"] = at.timestamp()

    def started(self, delay_seconds: float) -> None:
        """Count the beginning of an attempt, so late after its time."""
        with self._lock:
            self._delays.observe(max(0.0, delay_seconds))

    def ended(self, job: str | None, outcome: str, trigger: str, duration_seconds: float, rows: int | None) -> None:
        """Count a run that came to its end here, and the rows that it says it has worked through."""
        with self._lock:
            name = self._name(job)
            self._ended[name, str(outcome), trigger] += 1
            self._by_job[name]["rows"] += rows or 0
            if name in self._durations:
                self._durations[name].observe(duration_seconds)

    def count(self, what: str, job: str | None, number: int = 1) -> None:
        """Count something that happened to a job: `retries`, `missed`, `skipped`."""
        with self._lock:
            self._by_job[self._name(job)][what] += number

    def lost(self, runs: int) -> None:
        """Count runs that were taken back from workers that fell silent."""
        with self._lock:
            self._lost += runs

    def snapshot(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        with self._lock:
            return {
                "ended": [[*labels, count] for labels, count in self._ended.items()],
                "jobs": {job: dict(counters) for job, counters in self._by_job.items()},
                "durations": {job: histogram.snapshot() for job, histogram in self._durations.items()},
                "delays": self._delays.snapshot(),
                "lost": self._lost,
                "config": dict(self._config),
            }

    def _name(self, job: str | None) -> str:
        return job if job in self._by_job and job is not None else OTHER
