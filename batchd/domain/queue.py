"""What a queue allows, and whose turn it is when several queues have runs waiting."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from batchd.domain.quantities import parse_duration

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)\}")
_LONGEST_KEY = 200


class QueueOrder(enum.StrEnum):
    """How claims go round the queues."""

    STRICT = "strict"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` starts within any `period`."""

    count: int
    period: timedelta


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What holds for a queue in all daemons together. None: no limit.

    `priority` goes before that of the runs under a strict order; `weight` is the queue's share under a weighted one.
    `max_running_per_key` and `rate_per_key` are for each value of the runs' `limit_key`.
    """

    priority: int = 0
    weight: int = 1
    max_running: int | None = None
    rate: Rate | None = None
    max_running_per_key: int | None = None
    rate_per_key: Rate | None = None

    @property
    def is_shared(self) -> bool:
        """Whether what one daemon may claim depends on what the others do."""
        return not (self.max_running is None and self.rate is None) or self.is_keyed

    @property
    def is_keyed(self) -> bool:
        """Whether runs with one key wait for one another."""
        return not (self.max_running_per_key is None and self.rate_per_key is None)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What holds runs back, by queue: `rules` in all daemons together, `concurrency` in each of them."""

    rules: Mapping[str, QueueRules] = field(default_factory=dict)
    concurrency: Mapping[str, int] = field(default_factory=dict)


NO_RULES = QueueRules()
"""What holds for a queue that the config does not name."""


class Waiting(Protocol):
    """A run that waits: as much of it as decides about its turn."""

    queue: Any
    priority: Any
    available: Any
    id: Any


W = TypeVar("W", bound=Waiting)

Draw = Callable[[Sequence[str], Sequence[int]], str]
"""Draws one of the names, each with the chance of its weight."""


def strict_turn(run: Waiting, rules: Mapping[str, QueueRules]) -> tuple[Any, ...]:
    """Return what runs are sorted by in the strict order: the queue's priority, then the run's, then age."""
    return -rules.get(run.queue, NO_RULES).priority, -run.priority, run.available, run.id


def in_turn(
    waiting: Sequence[W], rules: Mapping[str, QueueRules], order: QueueOrder, limit: int, draw: Draw
) -> list[W]:
    """Return the runs in the order in which they may be claimed.

    Strict: the queue's priority, then the run's, then age. Weighted: `limit` times a queue is drawn, each with the
    chance of its weight, and its best run is next; so a queue with any weight at all is never starved. What is not
    drawn follows in the strict order, for the places that nobody else can fill.
    """
    ordered = sorted(waiting, key=lambda run: strict_turn(run, rules))
    if order is QueueOrder.STRICT:
        return ordered
    left: dict[str, list[W]] = {}
    for run in reversed(ordered):  # the best of each queue comes last, where `pop` takes it
        left.setdefault(run.queue, []).append(run)
    drawn: list[W] = []
    while len(drawn) < limit and left:
        names = sorted(left)
        name = draw(names, [rules.get(each, NO_RULES).weight for each in names])
        drawn.append(left[name].pop())
        if not left[name]:
            del left[name]
    taken = {run.id for run in drawn}
    return drawn + [run for run in ordered if run.id not in taken]


def resolved_key(template: str | None, params: Mapping[str, Any]) -> str | None:
    """Return the key of a run: the template with each `{param}` replaced by the run's parameter (empty if None).

    `{arguments.customer}` is what the parameter `arguments`, an object, has under `customer`.
    """
    if template is None:
        return None

    def value(found: re.Match[str]) -> str:
        given: Any = params
        for part in found[1].split("."):
            given = given.get(part) if isinstance(given, Mapping) else None
        if isinstance(given, str | None):
            return given or ""
        return json.dumps(given, ensure_ascii=False)  # as SQL writes it, which fills in keys too

    return _PLACEHOLDER.sub(value, template).replace("\0", "")[:_LONGEST_KEY]


def names_in(template: str) -> frozenset[str]:
    """Return the parameters that the template names, also by something within them."""
    return frozenset(name.partition(".")[0] for name in _PLACEHOLDER.findall(template))


def parse_rate(text: str) -> Rate:
    """Return the rate of "100/1m" or "10/s"; raises ValueError with what is wrong."""
    count, slash, period = text.partition("/")
    if not slash or not count.strip().isdigit() or int(count) < 1:
        raise ValueError(f'{text!r} is no rate; write for example "100/1m": so many starts in any such period')
    length = period.strip()
    span = parse_duration(length if length[:1].isdigit() else f"1{length}")
    if not timedelta(0) < span <= timedelta(days=31):
        raise ValueError(f"the period of {text!r} is not between 1 ms and 31 days")
    return Rate(int(count), span)
