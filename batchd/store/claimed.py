"""What a claim asks for, and what it returns."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from batchd.domain.job import Backoff, JsonObject, JsonValue, RetryPolicy
from batchd.domain.queue import QueueOrder, QueueRules
from batchd.domain.run import CreatedBy

KEYS_LOCK = "keys"
"""Held by whoever claims runs of several concurrency keys: two who take them in different orders would deadlock."""

NONSENSE = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)
"""What a row that somebody edited by hand can raise when it is read."""

CLAIM_COLUMNS = (
    *("id", "fence", "attempt", "max_attempts", "schedule_id", "kind", "queue", "params", "retry"),
    *("scheduled_for", "available_at", "timeout_seconds", "mutex", "limit_key", "created_by"),
)
"""What `claim_of` reads of a row."""

_POLICY = ("delay_seconds", "max_delay_seconds", "jitter", "backoff")
_LONGEST_DELAY = timedelta(days=3650).total_seconds()


@dataclass(frozen=True, slots=True)
class Claim:
    """One claimed run: everything that an attempt needs to know. `fence` goes with every later write."""

    run_id: int
    fence: int
    attempt: int
    max_attempts: int
    job: str | None
    kind: str
    queue: str
    params: JsonObject
    retry: RetryPolicy
    scheduled_for: datetime | None
    available_at: datetime
    timeout: timedelta | None
    is_waited_for: bool = False
    """Whether other runs may wait for its mutex or its key."""

    trigger: str = "schedule"
    """Why the attempt began, in a word of the log: schedule, manual, catchup, retry or api."""

    @property
    def log_fields(self) -> dict[str, JsonValue]:
        """What every log line of the run carries, from whatever thread."""
        return {
            "run_id": self.run_id,
            "job": self.job or self.kind,
            "attempt": self.attempt,
            "trigger": self.trigger,
        }


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a worker asks for: how many runs at most, how many more of each limited queue, for how long.

    `room` names the queues with a limit and how many more runs each of them may have; a queue that is not named has
    no limit. `rules` are what holds in all daemons together.
    """

    worker: str
    limit: int
    lease: timedelta
    room: Mapping[str, int]
    rules: Mapping[str, QueueRules] = field(default_factory=dict)
    order: QueueOrder = QueueOrder.STRICT
    random: Random = field(default_factory=Random)


def claim_of(row: Any) -> Claim:
    """Return the claim that a row with the CLAIM_COLUMNS of `batchd_runs` has become; raises NONSENSE."""
    return Claim(
        run_id=row.id,
        fence=row.fence,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        job=row.schedule_id,
        kind=row.kind,
        queue=row.queue,
        params=row.params,
        retry=_retry_policy(row.retry, row.max_attempts),
        scheduled_for=row.scheduled_for,
        available_at=row.available_at,
        timeout=None if row.timeout_seconds is None else timedelta(seconds=row.timeout_seconds),
        is_waited_for=row.mutex is not None or row.limit_key is not None,
        trigger=CreatedBy(row.created_by).trigger(row.attempt),
    )


def _retry_policy(stored: JsonObject, max_attempts: int) -> RetryPolicy:
    """Return the policy of a row; one that somebody edited into nonsense means a plain minute between attempts."""
    try:
        told: tuple[Any, ...] = tuple(stored[name] for name in _POLICY)
        return _policy_of(max_attempts, *told)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        minute = timedelta(minutes=1)
        return RetryPolicy(max_attempts, Backoff.FIXED, minute, minute, 0.0)


@functools.lru_cache(maxsize=64)
def _policy_of(max_attempts: int, delay: Any, longest: Any, jitter: Any, backoff: Any) -> RetryPolicy:
    """Return the policy, made once for all runs that have it alike; raises ValueError and others for nonsense."""
    delay, longest, jitter = float(delay), float(longest), float(jitter)
    if not (0 <= delay <= _LONGEST_DELAY and 0 <= longest <= _LONGEST_DELAY and 0 <= jitter <= 1):
        raise ValueError("out of bounds")
    return RetryPolicy(
        max_attempts, Backoff(str(backoff)), timedelta(seconds=delay), timedelta(seconds=longest), jitter
    )
