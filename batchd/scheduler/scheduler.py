"""The scheduler: the alarm clock, the planner and the pruner, behind one door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.scheduler.apscheduler_bridge import LONGEST_WAIT, AlarmClock, Passes
from batchd.scheduler.planner import Planner
from batchd.scheduler.pruner import Pruner
from batchd.store.history import Retention
from batchd.telemetry.meters import Meters


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """What the scheduler needs to know of the config."""

    retention: Retention


class Scheduler:
    """Plans runs from `start` until `pause` or `stop`. `wake` may be called from any thread.

    `on_turn` is called on the scheduling loop's own thread, at least every `longest_wait`: who feeds a watchdog there
    proves that the loop turns.
    """

    name = "scheduler"

    def __init__(
        self,
        store: Database,
        settings: SchedulerSettings,
        clock: Clock,
        *,
        on_planned: Callable[[], None] | None = None,
        on_turn: Callable[[], None] = lambda: None,
        longest_wait: timedelta = LONGEST_WAIT,
        meters: Meters | None = None,
    ) -> None:
        self._planner = Planner(store, on_planned, meters)
        self._alarm = AlarmClock(store, self._planner.plan, clock, on_turn=on_turn, longest_wait=longest_wait)
        self._pruner = Pruner(store, settings.retention, clock)

    @property
    def is_alive(self) -> bool:
        """Whether every thread of the scheduler runs."""
        return self._alarm.is_alive and self._pruner.is_alive

    @property
    def last_pass_at(self) -> datetime | None:
        """When the last pass that succeeded began, or None before the first; for health."""
        return self._alarm.passes.last_at

    @property
    def passes(self) -> Passes:
        """How the scheduling loop's passes went; for health and the status line."""
        return self._alarm.passes

    def reconfigure(self, settings: SchedulerSettings) -> None:
        """Keep history by other rules from now on, and look at once at the schedules as they are now."""
        self._pruner.retention = settings.retention
        self._alarm.wake()

    @property
    def last_pass_end(self) -> float:
        """When the last pass that succeeded was over (monotonic seconds; 0 before the first)."""
        return self._alarm.last_pass_end

    def queue_reboots(self, began_at: datetime) -> None:
        """Queue the `@reboot` jobs of a daemon that began then; asked again, nothing is queued twice."""
        self._planner.queue_reboots(began_at)

    def start(self) -> None:
        """Plan what is due, and go on."""
        self._alarm.start()
        self._pruner.start()

    def wake(self) -> None:
        """Look at once: schedules changed."""
        self._alarm.wake()

    def pause(self) -> None:
        """Plan nothing any more, at once; what is due stays due."""
        self._alarm.pause()
        self._pruner.request_stop()

    def stop(self, deadline: float) -> bool:
        """End all threads and wait until `deadline` (`clock.monotonic()` seconds); return whether they ended."""
        ended = self._alarm.stop(deadline)
        return self._pruner.stop(deadline) and ended
