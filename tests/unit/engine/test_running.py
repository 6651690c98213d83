"""An attempt hears that it is to stop, whenever it begins to listen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from batchd.domain.job import DEFAULT_RETRY
from batchd.engine.running import RunningAttempt
from batchd.errors import RunInterrupted, StopReason
from batchd.store.claimed import Claim


def attempt() -> RunningAttempt:
    """Return an attempt that a thread is about to take up."""
    now = datetime(2026, 5, 1, tzinfo=UTC)
    claim = Claim(1, 1, 1, 3, "nightly", "noop", "default", {}, DEFAULT_RETRY, now, now, None)
    return RunningAttempt(claim, trusted_until=60.0, claimed_at=0.0)


def test_an_attempt_that_was_told_to_stop_waits_for_nothing() -> None:
    """Even when it was told before it waited for the first time."""
    running = attempt()
    assert running.tell_to_stop(StopReason.SHUTDOWN)
    with pytest.raises(RunInterrupted):
        running.wait(timedelta(hours=1))


def test_a_pause_in_which_nobody_tells_it_to_stop_just_ends() -> None:
    """The next one hears of a stop in between."""
    running = attempt()
    running.wait(timedelta(0))
    running.tell_to_stop(StopReason.TIMEOUT)
    with pytest.raises(RunInterrupted):
        running.wait(timedelta(hours=1))


def test_statements_begun_before_and_after_a_cancel_have_the_same_interrupts() -> None:
    """Who cancels and who begins a statement are two threads, and either may come first."""
    running = attempt()
    running.interrupts.cancel(StopReason.TIMEOUT)
    assert running.interrupts.reason is StopReason.TIMEOUT
