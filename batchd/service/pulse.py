"""The sign of life for systemd's watchdog, given by the scheduling loop itself.

A thread of its own would prove that a thread of its own lives. Here the loop that plans calls `beat` on its way, and
systemd hears of it only while the rest of the daemon is good, too: so a daemon that looks alive and does nothing is
killed, leaves every thread's stack in the journal, and is started again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from batchd.clock import Clock
from batchd.scheduler.apscheduler_bridge import Passes
from batchd.systemd import Notifier
from batchd.telemetry.logs import get_logger
from batchd.telemetry.thinning import Thinning

_STALE = timedelta(seconds=60)
_FAILING_TOO_LONG = timedelta(minutes=5)


def complaint_of(passes: Passes, oldest_turn: tuple[str, float], dead: tuple[str, ...], monotonic: float) -> str | None:
    """Return why the daemon deserves no sign of life, or None while it does; all times are monotonic seconds.

    `oldest_turn` is the loop of the engine that has not turned for longest, and since when; `dead` names parts that
    have ended. An outage of the store excuses every loop that waits for it, and the minute after it as well: a restart
    would heal nothing. Passes that fail for another reason are excused for 5 minutes.
    """
    if dead:
        return f"died: {', '.join(dead)}"
    if passes.is_store_away:
        return None
    if passes.failing_since is not None:
        failing = monotonic - passes.failing_since
        return f"planning fails for {failing:.0f} s" if failing > _FAILING_TOO_LONG.total_seconds() else None
    name, turned_at = oldest_turn
    still = monotonic - max(turned_at, monotonic if passes.sound_since is None else passes.sound_since)
    return f"{name} hangs for {still:.0f} s" if still > _STALE.total_seconds() else None


class Pulse:
    """Feeds the watchdog at half its time. `beat` is for the scheduling loop's thread alone."""

    def __init__(
        self, notifier: Notifier, watchdog: timedelta | None, complaint: Callable[[], str | None], clock: Clock
    ) -> None:
        self.every = None if watchdog is None else watchdog / 2
        self._notifier = notifier
        self._complaint = complaint
        self._clock = clock
        self._fed_at: float | None = None
        self._withheld = Thinning()
        self._log = get_logger(loop="scheduler")

    def beat(self) -> None:
        """Give a sign of life if one is due and deserved; call it at least `every` so long."""
        if self.every is None:
            return
        now, every = self._clock.monotonic(), self.every.total_seconds()
        age = None if self._fed_at is None else now - self._fed_at
        if age is not None and age < every / 2:
            return
        complaint = self._complaint()
        if complaint is not None:
            if self._withheld.failed(now):
                self._log.error("watchdog.withheld", reason=complaint)
            return
        self._withheld.recovered(now)
        self._notifier.feed()
        self._fed_at = now
        if age is not None and age > 1.5 * every:
            self._log.warning("watchdog.late", age_s=round(age, 1), limit_s=2 * every)
