"""An attempt is told to stop when its lease is no longer sure, and not a turn later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from batchd.engine.running import InHand, RunningAttempt
from batchd.engine.stopper import Stopper
from batchd.errors import StopReason
from tests.unit.engine.test_running import attempt

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> datetime:
        """Return the moment."""
        return NOW + timedelta(seconds=self.at)

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.at


def stopper_of(running: RunningAttempt, clock: Hands) -> Stopper:
    """A stopper with the attempt in hand."""
    in_hand = InHand(clock)
    in_hand.add([running])
    return Stopper(in_hand, clock)


def test_it_looks_again_at_the_moment_when_a_lease_is_no_longer_sure() -> None:
    """It sleeps a second at most, and less where the trust in a lease ends before."""
    running, clock = attempt(), Hands()
    stopper = stopper_of(running, clock)
    assert stopper.run_once(NOW) == timedelta(seconds=1)
    clock.at = running.trusted_until - 0.25
    assert timedelta(seconds=0.25) < stopper.run_once(NOW) < timedelta(seconds=0.26)
    assert running.stop_reason is None
    clock.at = running.trusted_until + 0.001
    stopper.run_once(NOW)
    assert running.stop_reason is StopReason.LEASE_LOST
