"""Whose turn it is, what a key is, and how a rate is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import pytest

from batchd.domain.queue import Draw, QueueOrder, QueueRules, Rate, in_turn, names_in, parse_rate, resolved_key


@dataclass(frozen=True)
class Run:
    """As much of a run as decides about its turn."""

    queue: str
    id: int
    priority: int = 0
    available: str = "2026"


RULES = {"critical": QueueRules(priority=10, weight=5), "default": QueueRules(weight=4), "low": QueueRules(weight=1)}


def drawing(seed: int) -> Draw:
    """Draw with a fixed seed."""
    random = Random(seed)
    return lambda names, weights: random.choices(names, weights)[0]


def flood(count: int) -> list[Run]:
    """So many waiting runs of each queue, the low ones the oldest."""
    return [
        Run(queue, number * 10 + place)
        for place, queue in enumerate(("low", "default", "critical"))
        for number in range(count)
    ]


def test_a_strict_order_goes_by_queue_then_run_then_age() -> None:
    """Whatever a run's own priority, a queue of a higher one goes first."""
    runs = [Run("low", 1, 9), Run("default", 2), Run("default", 3, 5), Run("critical", 5), Run("critical", 4)]
    ordered = in_turn(runs, {"critical": QueueRules(priority=1)}, QueueOrder.STRICT, 9, drawing(1))
    assert [run.id for run in ordered] == [4, 5, 1, 3, 2]


def test_a_weighted_order_gives_each_queue_its_share() -> None:
    """Over many draws of a fixed seed each queue has its weight's part within three standard deviations."""
    draw, counts = drawing(20261125), Counter[str]()
    for _ in range(900):
        counts.update(run.queue for run in in_turn(flood(10), RULES, QueueOrder.WEIGHTED, 10, draw)[:10])
    for queue, share in {"critical": 0.5, "default": 0.4, "low": 0.1}.items():
        deviation = (9000 * share * (1 - share)) ** 0.5
        assert abs(counts[queue] - 9000 * share) < 3 * deviation + 30, counts


def test_a_weighted_order_loses_nobody_and_keeps_the_order_within_a_queue() -> None:
    """What was not drawn comes after what was; each queue's own runs stay in order of priority and age."""
    runs = [*flood(5), Run("low", 999, priority=7)]
    ordered = in_turn(runs, RULES, QueueOrder.WEIGHTED, 6, drawing(3))
    assert sorted(run.id for run in ordered) == sorted(run.id for run in runs)
    drawn = [run.id for run in ordered[:6] if run.queue == "critical"]
    assert drawn == sorted(drawn)
    assert next(run for run in ordered if run.queue == "low").id == 999


def test_a_key_is_made_of_the_runs_parameters() -> None:
    """A parameter that a run does not have leaves its place empty."""
    assert resolved_key(None, {"a": 1}) is None
    assert resolved_key("{customer}/{missing}", {"customer": 7}) == "7/"
    assert resolved_key("{nul}", {"nul": "a\0b"}) == "ab"
    assert resolved_key("{arguments.customer}", {"arguments": {"customer": "x"}}) == "x"
    assert resolved_key("{arguments.customer.id}{no.such}", {"arguments": {"customer": "x"}}) == ""
    assert names_in("{a}-{b.c} {a}") == {"a", "b"}


def test_a_rate_is_a_count_and_a_period() -> None:
    """With or without a number before the unit."""
    assert parse_rate("100/1m") == Rate(100, timedelta(minutes=1))
    assert parse_rate("5/s") == Rate(5, timedelta(seconds=1))


@pytest.mark.parametrize("text", ["", "5", "0/s", "x/1m", "5/", "5/0s", "5/90d", "1.5/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """With a message, not with a guess."""
    with pytest.raises(ValueError, match=r"."):
        parse_rate(text)
