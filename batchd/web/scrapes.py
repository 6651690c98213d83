"""What of a scrape is remembered for the next one, so that scraping costs the store little however often it is done."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from datetime import datetime, timedelta

from batchd.domain.job import JobDefinition
from batchd.domain.preview import fires_of
from batchd.domain.schedule import ScheduleError
from batchd.errors import BatchdError
from batchd.store.gauges import GaugeReader, Gauges
from batchd.web.desk import Desk

_FRESH = timedelta(seconds=5)
_SHARE = 20
_FIRES = 4
_INTERVALS_FOR = timedelta(minutes=10)


class Scrapes:
    """Reads the store for a scrape at most every five seconds, and never more than a twentieth of the time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._reader = GaugeReader()
        self._gauges: Gauges | None = None
        self._fresh_until = 0.0
        self._intervals: Mapping[str, float] = {}
        self._intervals_until = 0.0

    async def gauges(self, desk: Desk) -> Gauges | None:
        """Return what the store says, or None when it does not answer."""
        async with self._lock:
            began = desk.clock.monotonic()
            if began < self._fresh_until:
                return self._gauges
            try:
                self._gauges = await desk.ask_store(self._reader.read, desk.jobs.queue_limits())
            except BatchdError:
                self._gauges = None
            took = desk.clock.monotonic() - began
            self._fresh_until = began + max(_FRESH.total_seconds(), took * _SHARE)
            return self._gauges

    async def intervals(self, desk: Desk) -> Mapping[str, float]:
        """Return the longest of the coming intervals between fires, by job."""
        if desk.clock.monotonic() > self._intervals_until:
            self._intervals_until = desk.clock.monotonic() + _INTERVALS_FOR.total_seconds()
            self._intervals = await desk.in_thread(_intervals, desk.jobs.definitions(), desk.clock.now())
        return self._intervals


def _intervals(definitions: Mapping[str, JobDefinition], now: datetime) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, job in definitions.items():
        try:
            fires = fires_of(job, now, _FIRES)
        except ScheduleError:
            continue
        gaps = [(after.utc - before.utc).total_seconds() for before, after in itertools.pairwise(fires)]
        if gaps:
            found[name] = max(gaps)
    return found
