"""Tells systemd how the daemon is, in sentences for whoever types `systemctl status`."""

from __future__ import annotations

from batchd.clock import Clock
from batchd.engine.pool import Engine
from batchd.scheduler.scheduler import Scheduler
from batchd.service import status_line
from batchd.service.first_contact import EXTENSION
from batchd.service.reload import Reloader
from batchd.systemd import Notifier


class Announcer:
    """Looks at the daemon's parts and tells what it sees. Any thread may call any method."""

    def __init__(
        self, notifier: Notifier, engine: Engine, scheduler: Scheduler, reloader: Reloader, clock: Clock
    ) -> None:
        self._notifier = notifier
        self._engine = engine
        self._scheduler = scheduler
        self._reloader = reloader
        self._clock = clock

    def ready(self) -> None:
        """Say that the start, or a reload, is over and the daemon serves."""
        self._notifier.ready(self._serving())

    def look(self) -> None:
        """Say what has changed since the last look."""
        self._notifier.status(self._serving())

    def stopping(self) -> None:
        """Say that the daemon stops, and what it waits for."""
        self._notifier.stopping(self._draining())

    def draining(self) -> None:
        """Say what the stop waits for, and that it goes on.

        To be called by the stop itself, on its way: one that hangs gets no more time from systemd.
        """
        self._notifier.status(self._draining())
        self._notifier.extend(EXTENSION)

    def _serving(self) -> str:
        passes = self._scheduler.passes
        troubles = []
        if passes.is_store_away:
            troubles.append("the store does not answer")
        elif passes.failing_since is not None:
            troubles.append("planning fails")
        if self._reloader.rejected is not None:
            troubles.append(f"the changed config was refused, the old one holds: {self._reloader.rejected}")
        if self._engine.is_quiet:
            troubles.append("quiet: claims no runs")
        job, at = (None, None) if passes.next_fire is None else (passes.next_fire.job, passes.next_fire.at)
        jobs, running = len(self._reloader.config.jobs), len(self._engine.active())
        return status_line.serving(status_line.Situation(jobs, running, job, at, tuple(troubles)), self._clock.now())

    def _draining(self) -> str:
        claims = [attempt.claim for attempt in self._engine.active()]
        return status_line.draining([(claim.job or claim.kind, claim.run_id) for claim in claims])
