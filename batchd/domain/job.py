"""A job's definition as the rooms of the daemon see it: every default filled in, every secret taken out."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]

CONFIG_REFERENCE: JsonObject = {"$ref": "config"}
"""What stands in a stored params object where the config holds a secret; the executing daemon puts it back."""


class CatchUp(enum.StrEnum):
    """What to do about fire times that passed unserved."""

    ONCE = "once"
    SKIP = "skip"
    ALL = "all"


class Overlap(enum.StrEnum):
    """What to do when a fire time comes while the job's last run is unfinished."""

    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"


class Backoff(enum.StrEnum):
    """How the wait between two attempts grows."""

    EXPONENTIAL = "exponential"
    LINEAR = "linear"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a run is tried and how long to wait in between.

    `jitter` is a fraction from 0 to 1 of the delay, added or taken away.
    """

    max_attempts: int
    backoff: Backoff
    delay: timedelta
    max_delay: timedelta
    jitter: float

    def as_json(self) -> JsonObject:
        """Return the policy as it is stored in a schedule's and a run's row."""
        return {
            "backoff": self.backoff.value,
            "delay_seconds": self.delay.total_seconds(),
            "max_delay_seconds": self.max_delay.total_seconds(),
            "jitter": self.jitter,
        }


DEFAULT_RETRY = RetryPolicy(3, Backoff.EXPONENTIAL, timedelta(seconds=10), timedelta(hours=1), 0.1)
DEFAULT_TIMEOUT = timedelta(hours=1)
"""What a run has when nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class CatchUpPolicy:
    """Catch-up with the bounds of `all`: at most `max_runs` runs, none of them for a fire older than `max_age`."""

    mode: CatchUp
    max_runs: int
    max_age: timedelta


@dataclass(frozen=True, slots=True)
class JobDefinition:
    """One `[jobs.NAME]`. `schedule` is the text as written; None for a job that only a trigger runs.

    `params` are the kind's own, with `CONFIG_REFERENCE` in place of every secret. `limit_key` may name params in
    braces; `keep` says for how many seconds runs that ended in a state are kept, over the daemon's own rule. `then` is
    what is queued when a run succeeds, see `batchd.domain.follow`.
    """

    name: str
    kind: str
    schedule: str | None
    timezone: str
    queue: str
    priority: int
    enabled: bool
    catch_up: CatchUpPolicy
    overlap: Overlap
    start_deadline: timedelta | None
    jitter: timedelta
    timeout: timedelta | None
    retry: RetryPolicy
    params: Mapping[str, JsonValue]
    mutex: str | None = None
    limit_key: str | None = None
    keep: Mapping[str, float] | None = None
    then: Mapping[str, JsonValue] | None = None

    @property
    def definition_hash(self) -> str:
        """Return a hash of everything that a schedule's row holds; two equal hashes mean that nothing changed."""
        facts = {
            "kind": self.kind,
            "schedule": self.schedule,
            "timezone": self.timezone,
            "queue": self.queue,
            "priority": self.priority,
            "enabled": self.enabled,
            "catch_up": [
                self.catch_up.mode.value,
                self.catch_up.max_runs,
                self.catch_up.max_age.total_seconds(),
            ],
            "overlap": self.overlap.value,
            "start_deadline": self.start_deadline and self.start_deadline.total_seconds(),
            "jitter": self.jitter.total_seconds(),
            "timeout": self.timeout and self.timeout.total_seconds(),
            "max_attempts": self.retry.max_attempts,
            "retry": self.retry.as_json(),
            "params": self.params,
            **({} if self.then is None else {"then": self.then}),
        }
        # Left out when unset, so that the rows of jobs that have none do not count as changed.
        added = {"mutex": self.mutex, "limit_key": self.limit_key, "keep": self.keep}
        facts |= {name: value for name, value in added.items() if value is not None}
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=dict)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]
