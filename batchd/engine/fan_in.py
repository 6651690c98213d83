"""Brings fan-outs to their end: counts their children, and queues what is to follow once all are final."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.loop import Loop
from batchd.store import fan_outs

_WHILE_OPEN = timedelta(seconds=1)
_IDLE = timedelta(seconds=5)


class FanIn(Loop):
    """Looks every second while a fan-out is open. Any number of daemons may: a row lock decides who completes one."""

    def __init__(self, store: Database, on_queued: Callable[[], None], clock: Clock) -> None:
        super().__init__("fan-in", clock)
        self._store = store
        self._on_queued = on_queued

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Complete what can be."""
        if not fan_outs.has_open(self._store):
            return _IDLE
        for done in fan_outs.complete(self._store):
            if done.error is None:
                self._log.info("fan_out.completed", run_id=done.run_id, children=done.children)
            else:
                self._log.error("fan_out.completed", run_id=done.run_id, children=done.children, reason=done.error)
            if done.on_complete is not None or done.on_success is not None:
                self._on_queued()
        return _WHILE_OPEN
