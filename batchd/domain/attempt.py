"""One attempt: what can come of it, and what then becomes of its run.

`decide` is the whole policy; `engine.attempt` only gathers the facts for it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta

from batchd.domain.run import Reason, RunState


class AttemptOutcome(enum.StrEnum):
    """How an attempt ended. `released` and `lost` give the attempt's number back; so does a snooze, a release."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    RELEASED = "released"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class AttemptError:
    """What went wrong: the type's name, one line for a person, and the stack without local variables."""

    type: str
    message: str
    traceback: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the run. `retry_in` is set exactly when the state is `queued`."""

    state: RunState
    reason: Reason | None
    retry_in: timedelta | None


DISCARDED = Decision(RunState.CANCELLED, Reason.DISCARDED, None)
"""The job itself said that its run is not worth doing: no failure, and nobody's request."""


def snoozed(pause: timedelta) -> Decision:
    """Return what becomes of a run that put itself off."""
    return Decision(RunState.QUEUED, Reason.SNOOZED, pause)


def decide(outcome: AttemptOutcome, *, attempt: int, max_attempts: int, retryable: bool, delay: timedelta) -> Decision:
    """Return what becomes of a run whose attempt number `attempt` (from 1) ended with `outcome`.

    `delay` is the back-off before attempt `attempt + 1`; `retryable` is False when the kind said that trying again
    cannot help.
    """
    match outcome:
        case AttemptOutcome.SUCCEEDED:
            return Decision(RunState.SUCCEEDED, None, None)
        case AttemptOutcome.CANCELLED:
            return Decision(RunState.CANCELLED, Reason.REQUESTED, None)
        case AttemptOutcome.RELEASED | AttemptOutcome.LOST:
            return Decision(RunState.QUEUED, None, timedelta(0))
        case AttemptOutcome.FAILED | AttemptOutcome.TIMED_OUT:
            reason = Reason.TIMEOUT if outcome is AttemptOutcome.TIMED_OUT else Reason.ERROR
            if retryable and attempt < max_attempts:
                return Decision(RunState.QUEUED, reason, delay)
            return Decision(RunState.FAILED, reason, None)
