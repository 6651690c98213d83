"""The one shape of every side loop: `start()`, `wake()`, `stop(deadline)`, `run_once(now)`.

Reading one loop teaches all of them. A loop catches at its boundary: it logs an error once with its traceback, counts
repeats, backs off, and goes on. It never sleeps longer than it was told and wakes at once when asked to stop.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from batchd.clock import Clock
from batchd.errors import BatchdError
from batchd.telemetry.logs import get_logger
from batchd.telemetry.thinning import Thinning

_FIRST_BACKOFF = timedelta(seconds=0.5)
_LONGEST_BACKOFF = timedelta(seconds=15)


class Leaseholder(Protocol):
    """A loop that holds something which another daemon takes over when it is closed."""

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        ...

    def start(self) -> None:
        """Start its thread."""
        ...

    def request_stop(self) -> None:
        """Ask it to end after its current turn."""
        ...

    def stop(self, deadline: float) -> bool:
        """Wait until `deadline` (monotonic seconds); return whether it ended."""
        ...

    def close(self) -> None:
        """Give up what it holds, its thread having ended; raises BatchdError when the store is away."""
        ...


class Leaseholders(abc.ABC):
    """Several of them behind one door: `start`, `stop` and `is_alive` as of one loop."""

    @property
    @abc.abstractmethod
    def _loops(self) -> Sequence[Leaseholder]: ...

    @property
    def is_alive(self) -> bool:
        """Whether every thread runs."""
        return all(loop.is_alive for loop in self._loops)

    def start(self) -> None:
        """Start every thread."""
        for loop in self._loops:
            loop.start()

    def request_stop(self) -> None:
        """Ask all threads to end after what is at hand."""
        for loop in self._loops:
            loop.request_stop()

    def stop(self, deadline: float) -> bool:
        """Wait until `deadline` (monotonic seconds) and give everything up; return whether all threads have ended."""
        self.request_stop()
        has_ended = True
        for loop in self._loops:
            if not loop.stop(deadline):
                has_ended = False  # it is in the middle of something; its lease ends by itself
                continue
            try:
                loop.close()
            except BatchdError:
                has_ended = False  # the store is away: the leases end by themselves
        return has_ended


class Loop(abc.ABC):
    """A thread that calls `run_once` again and again. `start`, `wake` and `stop` may be called from any thread."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.failures = 0
        self.turned_at = clock.monotonic()
        """When the last turn ended (monotonic seconds): an old one tells of a loop that hangs in a turn."""

        self._clock = clock
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._log = get_logger(loop=name)
        self._thinning = Thinning()

    @abc.abstractmethod
    def run_once(self, now: datetime) -> timedelta:
        """Do what is due and return how long to wait before the next turn (a wake ends the wait early)."""

    def start(self) -> None:
        """Start the thread (a daemon thread: a hung loop cannot keep the process alive)."""
        self._thread = threading.Thread(target=self._turn_until_stopped, name=f"batchd-{self.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """End the current wait; a wake during a turn makes the next turn follow at once."""
        if not self._woken.is_set():
            self._woken.set()

    @property
    def is_woken(self) -> bool:
        """Whether the next turn follows at once."""
        return self._woken.is_set()

    def request_stop(self) -> None:
        """Ask the loop to end after its current turn, without waiting for it."""
        self._stopping.set()
        self._woken.set()

    def stop(self, deadline: float) -> bool:
        """Ask the loop to end and wait until `deadline` (`clock.monotonic()` seconds); return whether it ended."""
        self.request_stop()
        if self._thread is None:
            return True
        self._thread.join(max(0.0, deadline - self._clock.monotonic()))
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether the loop's thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._stopping.is_set()

    def _turn_until_stopped(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            pause = self._turn()
            self.turned_at = self._clock.monotonic()
            self._woken.wait(pause.total_seconds())

    def _turn(self) -> timedelta:
        try:
            pause = self.run_once(self._clock.now())
        except Exception as error:  # noqa: BLE001 (the loop's boundary: nothing may end it)
            self.failures += 1
            if self._thinning.failed(self._clock.monotonic()):
                self._tell(error)
            return min(_FIRST_BACKOFF * (1 << min(self.failures - 1, 10)), _LONGEST_BACKOFF)
        if self._thinning.recovered(self._clock.monotonic()) is not None:
            self._log.info("loop.recovered", failures=self.failures)
            self.failures = 0
        return pause

    def _tell(self, error: Exception) -> None:
        """Log a failure; one with a plain message of ours needs no traceback."""
        if isinstance(error, BatchdError):
            self._log.warning("loop.failed", failures=self.failures, reason=str(error))
        else:
            self._log.error("loop.failed", failures=self.failures, exc_info=error)
