"""Hears what others commit to the store and wakes the rooms that care, within milliseconds on PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.dialect import Topic, WakeSource
from batchd.db.engine import Database
from batchd.errors import DatabaseUnavailable
from batchd.loop import Loop
from batchd.telemetry.thinning import Thinning

_LISTEN_FOR = timedelta(seconds=1)
"""Bounds how long a stop waits for this loop."""

_TRY_AGAIN = timedelta(seconds=0.5)


class WakeLoop(Loop):
    """Listens on one connection of its own; after a broken connection it wakes every room, for it may have missed one.

    A wake is only ever a hint: each room also looks by itself at a bounded interval.
    """

    def __init__(self, store: Database, on_wake: Callable[[frozenset[Topic]], None], clock: Clock) -> None:
        super().__init__("wake", clock)
        self._store = store
        self._on_wake = on_wake
        self._source: WakeSource | None = None
        self._outage = Thinning()

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Listen for a while and pass on what was heard; tell when the store goes away and when it is back."""
        try:
            topics = self._listen()
        except DatabaseUnavailable as error:
            self.close()
            if self._outage.failed(self._clock.monotonic()):
                self._log.warning("store.unavailable", reason=error.message, failures=self._outage.count)
            return _TRY_AGAIN
        except BaseException:
            self.close()
            raise
        outage = self._outage.recovered(self._clock.monotonic())
        if outage is not None:
            self._log.info("store.recovered", outage_s=round(outage, 1))
        if topics and not self.is_stopping:
            self._on_wake(topics)
        return timedelta(0)

    def _listen(self) -> frozenset[Topic]:
        with self._store.translating():
            if self._source is None:
                self._source = self._store.dialect.wake_source(self._store.engine)
                return frozenset(Topic)
            return self._source.wait(_LISTEN_FOR)

    def close(self) -> None:
        """Give the connection back."""
        source, self._source = self._source, None
        if source is not None:
            with contextlib.suppress(OSError):
                source.close()
