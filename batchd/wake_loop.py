"""Hears what others commit to the store and wakes the rooms that care, within milliseconds on PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.dialect import Topic, WakeSource
from batchd.db.engine import Database
from batchd.loop import Loop

_LISTEN_FOR = timedelta(seconds=1)
"""Bounds how long a stop waits for this loop."""


class WakeLoop(Loop):
    """Listens on one connection of its own; after a broken connection it wakes every room, for it may have missed one.

    A wake is only ever a hint: each room also looks by itself at a bounded interval.
    """

    def __init__(self, store: Database, on_wake: Callable[[frozenset[Topic]], None], clock: Clock) -> None:
        super().__init__("wake", clock)
        self._store = store
        self._on_wake = on_wake
        self._source: WakeSource | None = None

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Listen for a while and pass on what was heard."""
        if self._source is None:
            with self._store.translating():
                self._source = self._store.dialect.wake_source(self._store.engine)
            self._on_wake(frozenset(Topic))
        try:
            with self._store.translating():
                topics = self._source.wait(_LISTEN_FOR)
        except BaseException:
            self.close()
            raise
        if topics and not self.is_stopping:
            self._on_wake(topics)
        return timedelta(0)

    def close(self) -> None:
        """Give the connection back."""
        source, self._source = self._source, None
        if source is not None:
            with contextlib.suppress(OSError):
                source.close()
