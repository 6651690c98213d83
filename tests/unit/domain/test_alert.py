"""When something is wrong enough to tell, and when it may be told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from batchd.domain.alert import (
    AlertPolicy,
    AlertRule,
    duration_limit,
    is_short,
    is_too_quiet,
    overdue_fire,
    parse_quiet_hours,
    pause_after,
    percentile,
)
from batchd.domain.schedule import parse_schedule

MINUTE = timedelta(minutes=1)


def policy(max_duration: timedelta | None = None, p99_factor: float | None = 3.0) -> AlertPolicy:
    """Every rule, with these limits."""
    return AlertPolicy(frozenset(AlertRule), True, (), 15 * MINUTE, max_duration, p99_factor, MINUTE)


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-25T20:59", None),
        ("2026-11-25T21:00", "2026-11-26T06:00"),
        ("2026-11-26T05:59", "2026-11-26T06:00"),
        ("2026-11-26T06:00", None),
        ("2026-03-28T23:00", "2026-03-29T05:00"),  # the night in which Berlin's clock goes forward
    ],
)
def test_quiet_hours_go_over_midnight_by_the_clock_of_their_zone(now: str, until: str | None) -> None:
    """From 22:00 to 07:00 in Berlin is from 21:00 to 06:00 UTC in winter."""
    quiet = parse_quiet_hours("22:00-07:00", "Europe/Berlin")
    assert quiet.end_after(at(now)) == (None if until is None else at(until))


def test_quiet_hours_within_a_day() -> None:
    """They begin and end on the same day."""
    quiet = parse_quiet_hours("12:00 - 13:30", "UTC")
    assert quiet.end_after(at("2026-11-25T12:10")) == at("2026-11-25T13:30")
    assert quiet.end_after(at("2026-11-25T13:30")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("25:00-07:00", "no clock shows"),
        ("22:60-07:00", "no clock shows"),
        ("7-9", "write"),
        ("08:00-08:00", "all day"),
    ],
)
def test_impossible_quiet_hours_are_refused(text: str, said: str) -> None:
    """With what is wrong about them."""
    with pytest.raises(ValueError, match=said):
        parse_quiet_hours(text, "UTC")


def test_a_fire_is_overdue_when_the_grace_is_over() -> None:
    """The first fire after the start of the last success, and not one that this success has served."""
    rule = parse_schedule("0 3 * * *", "UTC")
    began = at("2026-11-24T03:00") + timedelta(seconds=1)
    fire = at("2026-11-25T03:00")
    assert overdue_fire(rule, began, fire + 15 * MINUTE, 15 * MINUTE) is None
    assert overdue_fire(rule, began, fire + 16 * MINUTE, 15 * MINUTE) == fire
    assert overdue_fire(rule, fire + MINUTE, fire + 16 * MINUTE, 15 * MINUTE) is None


def test_the_limit_is_the_lower_of_the_given_one_and_the_own_p99() -> None:
    """The own one counts from twenty runs on and never goes below its least."""
    hours = [3_600.0] * 99 + [7_200.0]
    assert duration_limit(policy(), hours) == timedelta(hours=3)
    assert duration_limit(policy(timedelta(hours=1)), hours) == timedelta(hours=1)
    assert duration_limit(policy(), hours[:19]) is None
    assert duration_limit(policy(), [0.1] * 50) == MINUTE
    assert duration_limit(policy(p99_factor=None), hours) is None
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0


def test_no_rows_are_odd_only_where_there_are_always_some() -> None:
    """One earlier run without rows, or too few of them, and it is not."""
    assert is_too_quiet(0, [5, 3, 8, 1, 2])
    assert is_too_quiet(None, [5, 3, 8, 1, 2])
    assert not is_too_quiet(1, [5, 3, 8, 1, 2])
    assert not is_too_quiet(0, [5, 0, 8, 1, 2])
    assert not is_too_quiet(0, [5, 3, 8, 1])


def test_a_channel_rests_longer_and_longer_but_not_for_ever() -> None:
    """Two seconds, four, … ten minutes."""
    assert [pause_after(each).total_seconds() for each in (1, 2, 3, 9, 10, 5_000)] == [2, 4, 8, 512, 600, 600]


def test_a_run_that_is_short_is_within_the_limit_whatever_the_last_ones_took() -> None:
    """So nobody need look up what they took."""
    for rules in (policy(), policy(timedelta(seconds=20)), policy(p99_factor=None), policy(timedelta(hours=2), None)):
        for seconds in (0.1, 20.0, 60.0, 60.1, 7_200.0, 7_300.0):
            limits = [duration_limit(rules, [took] * 50) for took in (0.0, 1.0, 3_600.0)]
            is_within = all(limit is None or timedelta(seconds=seconds) <= limit for limit in limits)
            assert is_short(rules, timedelta(seconds=seconds)) is is_within
