"""Removes what batchd no longer needs to remember."""

from __future__ import annotations

from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.loop import Loop
from batchd.store import history
from batchd.store.history import Retention

_EVERY = timedelta(minutes=10)
_BETWEEN_CHUNKS = timedelta(milliseconds=100)


class Pruner(Loop):
    """One short transaction a turn while there is something to remove, then ten minutes of rest."""

    def __init__(self, store: Database, retention: Retention, clock: Clock) -> None:
        super().__init__("pruner", clock)
        self._store = store
        self.retention = retention

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Remove one chunk of each sort."""
        removed = history.prune(self._store, self.retention)
        if removed.rows:
            self._log.info("history.pruned", runs=removed.runs, events=removed.events, workers=removed.workers)
        for name, events in removed.unread.items():
            self._log.error("listener.events_lost", listener=name, events=events)
        return _BETWEEN_CHUNKS if removed.is_partial else _EVERY
