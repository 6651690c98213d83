"""How long to wait before the next attempt."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from batchd.domain.job import Backoff, RetryPolicy


def delay_after(policy: RetryPolicy, attempt: int, *, seed: str) -> timedelta:
    """Return the wait after attempt number `attempt` (from 1) failed.

    The jitter is a function of `seed` and the attempt, so that the same failure always waits equally long and many
    runs that fail together spread out.
    """
    match policy.backoff:
        case Backoff.EXPONENTIAL:
            factor = 2.0 ** min(attempt - 1, 60)
        case Backoff.LINEAR:
            factor = float(attempt)
        case Backoff.FIXED:
            factor = 1.0
    seconds = min(policy.delay.total_seconds() * factor, policy.max_delay.total_seconds())
    swing = policy.jitter * (2 * fraction_of(f"{seed}:{attempt}") - 1)
    return timedelta(seconds=max(0.0, seconds * (1 + swing)))


def fraction_of(seed: str) -> float:
    """Return a number from 0 (included) to 1 (excluded) that depends on the text alone."""
    digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
