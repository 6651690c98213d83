"""The attempts that this daemon has in hand, and how each is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING

from batchd.clock import Clock
from batchd.db.engine import Database, Interrupts
from batchd.errors import RunInterrupted, StopReason
from batchd.store.claimed import Claim
from batchd.store.leases import Progress

if TYPE_CHECKING:
    from batchd.engine.setup import Setup


class RunningAttempt:
    """One claimed run on its way through the engine. Any thread may call any method.

    `setup` is what of the config it works with, from its claim to its end, whatever is reloaded meanwhile.
    """

    def __init__(self, claim: Claim, *, trusted_until: float, claimed_at: float, setup: Setup | None = None) -> None:
        self.claim = claim
        self.setup = setup
        self.claimed_at = claimed_at
        self.trusted_until = trusted_until
        self.started_at: float | None = None
        self.deadline: float | None = None
        self.is_ended = False
        self.is_given_back = False
        self.rows: int | None = None
        self.checkpointed: dict[str, Database] = {}
        self.is_reported_stuck = False
        self._lock = threading.Lock()
        self._reason: StopReason | None = None
        self._progress: Progress | None = None
        self.last_progress: Progress | None = None
        # Both are made when they are first asked for: most attempts never do, and they cost more than all else here.
        self._told: threading.Event | None = None
        self._interrupts: Interrupts | None = None

    @property
    def interrupts(self) -> Interrupts:
        """Return the connections that the attempt has in use."""
        with self._lock:
            if self._interrupts is None:
                self._interrupts = Interrupts()
            return self._interrupts

    @property
    def stop_reason(self) -> StopReason | None:
        """Return why the attempt was told to stop, or None."""
        return self._reason

    def start(self, now: float) -> None:
        """Say that a thread has taken the attempt up; arms its timeout."""
        self.started_at = now
        if self.claim.timeout is not None:
            self.deadline = now + self.claim.timeout.total_seconds()

    def tell_to_stop(self, reason: StopReason) -> bool:
        """Tell the attempt to stop; return whether that is news. The first reason stands, but for a lost lease."""
        with self._lock:
            if self._reason is not None and reason is not StopReason.LEASE_LOST:
                return False
            is_news = self._reason is not reason
            self._reason = reason
            if self._told is not None:
                self._told.set()
        return is_news

    def raise_if_stopping(self) -> None:
        """Raise RunInterrupted when the attempt was told to stop."""
        if self._reason is not None:
            raise RunInterrupted(self._reason)

    def wait(self, pause: timedelta) -> None:
        """Sleep, unless and until the attempt is told to stop: then raise RunInterrupted."""
        with self._lock:
            self.raise_if_stopping()
            told = self._told = self._told or threading.Event()
        told.wait(max(0.0, pause.total_seconds()))
        self.raise_if_stopping()

    def report(self, progress: Progress) -> None:
        """Remember the latest progress."""
        with self._lock:
            self._progress = self.last_progress = progress
            self.rows = progress.done

    def take_progress(self) -> Progress | None:
        """Return the progress that has not been written yet, and forget it."""
        with self._lock:
            progress, self._progress = self._progress, None
            return progress


class InHand:
    """All claimed runs whose ending is not recorded yet. Any thread may call any method."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._attempts: dict[tuple[int, int], RunningAttempt] = {}

    def add(self, attempts: Collection[RunningAttempt]) -> None:
        """Count the attempts in."""
        with self._changed:
            self._attempts.update((_key(attempt.claim), attempt) for attempt in attempts)

    def remove(self, claims: Collection[Claim]) -> None:
        """Count the claims out, once the store knows how they ended."""
        with self._changed:
            for claim in claims:
                self._attempts.pop(_key(claim), None)
            self._changed.notify_all()

    def all(self) -> tuple[RunningAttempt, ...]:
        """Return every attempt in hand."""
        with self._changed:
            return tuple(self._attempts.values())

    def fences(self) -> dict[int, int]:
        """Return the newest fence of each run in hand: an attempt that hangs may be there beside a later one."""
        return dict(sorted(_key(attempt.claim) for attempt in self.all()))

    def count_by_queue(self) -> dict[str, int]:
        """Return how many attempts of each queue are in hand."""
        counts: dict[str, int] = {}
        for attempt in self.all():
            counts[attempt.claim.queue] = counts.get(attempt.claim.queue, 0) + 1
        return counts

    def wait_until_empty(self, deadline: float) -> bool:
        """Wait until nothing is in hand, but not beyond `deadline` (monotonic seconds); return whether it is."""
        with self._changed:
            while self._attempts:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True


def _key(claim: Claim) -> tuple[int, int]:
    return claim.run_id, claim.fence
