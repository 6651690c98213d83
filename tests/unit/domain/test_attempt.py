"""What becomes of a run when an attempt ends."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchd.domain.attempt import AttemptOutcome, decide
from batchd.domain.job import Backoff, RetryPolicy
from batchd.domain.retry import delay_after
from batchd.domain.run import Reason, RunState

DELAY = timedelta(seconds=7)


@pytest.mark.parametrize(
    ("outcome", "attempt", "retryable", "state", "reason"),
    [
        (AttemptOutcome.SUCCEEDED, 1, True, RunState.SUCCEEDED, None),
        (AttemptOutcome.CANCELLED, 1, True, RunState.CANCELLED, Reason.REQUESTED),
        (AttemptOutcome.FAILED, 1, True, RunState.QUEUED, Reason.ERROR),
        (AttemptOutcome.FAILED, 3, True, RunState.FAILED, Reason.ERROR),
        (AttemptOutcome.FAILED, 1, False, RunState.FAILED, Reason.ERROR),
        (AttemptOutcome.TIMED_OUT, 2, True, RunState.QUEUED, Reason.TIMEOUT),
        (AttemptOutcome.TIMED_OUT, 3, True, RunState.FAILED, Reason.TIMEOUT),
        (AttemptOutcome.RELEASED, 3, True, RunState.QUEUED, None),
        (AttemptOutcome.LOST, 3, True, RunState.QUEUED, None),
    ],
)
def test_the_outcome_decides(
    outcome: AttemptOutcome,
    attempt: int,
    retryable: bool,
    state: RunState,
    reason: Reason | None,
) -> None:
    """Failures retry while attempts are left; a released or lost attempt never counts."""
    decision = decide(outcome, attempt=attempt, max_attempts=3, retryable=retryable, delay=DELAY)
    assert (decision.state, decision.reason) == (state, reason)
    assert (decision.retry_in is not None) == (state is RunState.QUEUED)


@pytest.mark.parametrize(
    ("backoff", "seconds"),
    [(Backoff.EXPONENTIAL, [10, 20, 40, 60]), (Backoff.LINEAR, [10, 20, 30, 40]), (Backoff.FIXED, [10, 10, 10, 10])],
)
def test_back_off_grows_up_to_its_bound(backoff: Backoff, seconds: list[float]) -> None:
    """Without jitter the delays are exact."""
    policy = RetryPolicy(5, backoff, timedelta(seconds=10), timedelta(seconds=60), 0.0)
    assert [delay_after(policy, attempt, seed="r").total_seconds() for attempt in (1, 2, 3, 4)] == seconds


@given(st.text(), st.integers(1, 500), st.floats(0, 1))
def test_jitter_stays_within_its_share_and_is_repeatable(seed: str, attempt: int, jitter: float) -> None:
    """The same run and attempt always wait equally long."""
    policy = RetryPolicy(5, Backoff.EXPONENTIAL, timedelta(seconds=10), timedelta(seconds=60), jitter)
    delay = delay_after(policy, attempt, seed=seed)
    assert timedelta(0) <= delay <= timedelta(seconds=60) * (1 + jitter) + timedelta(microseconds=1)
    assert delay == delay_after(policy, attempt, seed=seed)
