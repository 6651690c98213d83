"""Ends attempts for real: timeouts, leases that cannot be trusted, and the SQL of whoever was told to stop.

It never asks the store: when that hangs, somebody must still be able to stop the attempts.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.engine.running import InHand, RunningAttempt
from batchd.errors import StopReason
from batchd.loop import Loop

_TURN = timedelta(seconds=0.25)
_JUST_AFTER = timedelta(milliseconds=1)
_IDLE = timedelta(seconds=1)
_STUCK_AFTER_SECONDS = 30.0


class Stopper(Loop):
    """Cancels statements in a thread of its own, since a server that hangs can make a cancel wait for seconds.

    A shutdown leaves statements alone until `force` is set: running jobs get their grace first.
    """

    def __init__(self, in_hand: InHand, clock: Clock) -> None:
        super().__init__("stopper", clock)
        self.force = False
        self._in_hand = in_hand
        self._told_at: dict[tuple[int, int], float] = {}

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Look at every attempt once."""
        monotonic = self._clock.monotonic()
        attempts = [attempt for attempt in self._in_hand.all() if not attempt.is_ended]
        pause = _IDLE
        for attempt in attempts:
            if attempt.trusted_until >= monotonic:
                left = min(attempt.trusted_until - monotonic, _IDLE.total_seconds())
                pause = min(pause, timedelta(seconds=left) + _JUST_AFTER)
            elif attempt.tell_to_stop(StopReason.LEASE_LOST):
                self._log.warning("lease.lost", run_id=attempt.claim.run_id, fence=attempt.claim.fence)
            if attempt.deadline is not None and attempt.stop_reason is None:
                if attempt.deadline <= monotonic:
                    self._time_out(attempt)
                else:
                    pause = min(pause, timedelta(seconds=attempt.deadline - monotonic))
        for attempt in attempts:
            if attempt.stop_reason is not None:
                pause = min(pause, _TURN)
                self._end(attempt, monotonic)
        keys = {_key(attempt) for attempt in attempts}
        self._told_at = {key: told for key, told in self._told_at.items() if key in keys}
        return pause

    def _time_out(self, attempt: RunningAttempt) -> None:
        if attempt.tell_to_stop(StopReason.TIMEOUT):
            self._log.warning("run.timed_out", **attempt.claim.log_fields)

    def _end(self, attempt: RunningAttempt, monotonic: float) -> None:
        reason = attempt.stop_reason
        assert reason is not None
        told_at = self._told_at.setdefault(_key(attempt), monotonic)
        if reason is not StopReason.SHUTDOWN or self.force:
            # Again and again: a statement that began just after the last cancel must end as well.
            attempt.interrupts.cancel(reason)
        if monotonic - told_at > _STUCK_AFTER_SECONDS and not attempt.is_reported_stuck:
            attempt.is_reported_stuck = True
            self._log.error("run.stuck", **attempt.claim.log_fields, reason=reason.value)


def _key(attempt: RunningAttempt) -> tuple[int, int]:
    return attempt.claim.run_id, attempt.claim.fence
