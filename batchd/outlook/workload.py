"""How long attempts take in a simulation, and how they end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from batchd.domain.quantities import format_duration, parse_duration
from batchd.domain.retry import fraction_of
from batchd.store.claimed import Claim

USUAL = timedelta(seconds=10)
"""What a run takes of which nobody knows anything."""

_QUANTUM = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Work:
    """What one attempt comes to if nobody stops it; `reacts_in`: how long it goes on once it is told to stop."""

    lasts: timedelta
    fails: bool = False
    is_retryable: bool = True
    reacts_in: timedelta = timedelta(0)


class Workload(Protocol):
    """Says what each attempt comes to: always the same for the same attempt."""

    def work_of(self, claim: Claim) -> Work:
        """Return the whole work of the attempt, as if no earlier one had done a part of it."""
        ...


@dataclass(frozen=True, slots=True)
class Lengths:
    """Durations to draw from: between `shortest` and `longest` (as likely to be 10 s as 100 s), or one of `seen`."""

    shortest: timedelta = USUAL
    longest: timedelta = USUAL
    seen: Sequence[timedelta] = ()

    def drawn(self, share: float) -> timedelta:
        """Return the duration that a number from 0 to 1 stands for."""
        if self.seen:
            return self.seen[min(int(share * len(self.seen)), len(self.seen) - 1)]
        if self.longest <= self.shortest:
            return self.shortest
        low, high = max(self.shortest, _QUANTUM).total_seconds(), self.longest.total_seconds()
        return timedelta(milliseconds=round(1000 * math.exp(math.log(low) + share * math.log(high / low))))

    def __str__(self) -> str:
        if self.seen:
            middle = sorted(self.seen)[len(self.seen) // 2]
            return f"history: {len(self.seen)} runs, the middle one {middle.total_seconds():g} s"
        if self.longest <= self.shortest:
            return format_duration(self.shortest)
        return f"{format_duration(self.shortest)} to {format_duration(self.longest)}"


@dataclass(frozen=True, slots=True)
class DrawnWorkload:
    """Draws each attempt's length and ending by seed, job, fire time and attempt.

    `lengths` and `failing` (a share from 0 to 1) are by job; `usual` and `usually_failing` are for all others.
    """

    seed: int
    lengths: Mapping[str, Lengths] = field(default_factory=dict)
    failing: Mapping[str, float] = field(default_factory=dict)
    usual: Lengths = field(default_factory=Lengths)
    usually_failing: float = 0.0

    def work_of(self, claim: Claim) -> Work:
        """See `Workload`."""
        job = claim.job or claim.kind
        which = f"{self.seed}:{job}:{claim.scheduled_for or claim.run_id}"
        length = self.lengths.get(job, self.usual).drawn(fraction_of(f"{which}:lasts"))
        fails = fraction_of(f"{which}:{claim.attempt}:fails") < self.failing.get(job, self.usually_failing)
        return Work(length, fails=fails)


def parse_lengths(text: str) -> Lengths:
    """Return the lengths that "30s" or "10s..5m" means; raises ValueError."""
    first, dots, last = text.partition("..")
    shortest = parse_duration(first)
    longest = parse_duration(last) if dots else shortest
    if longest < shortest:
        raise ValueError(f"{text!r}: the longest is shorter than the shortest")
    return Lengths(shortest, longest)
