"""Misfires: what runs, what is accounted for as missed, and that nothing falls in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchd.domain.catch_up import plan_fires
from batchd.domain.job import CatchUp, CatchUpPolicy
from batchd.domain.schedule import parse_schedule

NOW = datetime(2026, 11, 24, 12, 0, 3, tzinfo=UTC)


def policy(mode: CatchUp, max_runs: int = 100) -> CatchUpPolicy:
    """Return the mode with wide bounds."""
    return CatchUpPolicy(mode, max_runs, timedelta(days=1))


@pytest.mark.parametrize("mode", CatchUp)
def test_a_fire_on_time_runs_whatever_the_policy(mode: CatchUp) -> None:
    """Nothing was missed."""
    rule = parse_schedule("* * * * *", "UTC")
    fire = NOW.replace(second=0)
    plan = plan_fires(rule, next_run_at=fire, now=NOW, policy=policy(mode), start_deadline=None)
    assert (plan.due, plan.missed, plan.next_run_at) == ((fire,), None, fire + timedelta(minutes=1))


def test_once_runs_the_latest_and_accounts_for_the_rest() -> None:
    """Three minutes away: one run, two missed."""
    rule = parse_schedule("* * * * *", "UTC")
    first = NOW.replace(second=0) - timedelta(minutes=2)
    plan = plan_fires(rule, next_run_at=first, now=NOW, policy=policy(CatchUp.ONCE), start_deadline=None)
    assert plan.due == (NOW.replace(second=0),)
    assert plan.missed is not None
    assert (plan.missed.first, plan.missed.last, plan.missed.count) == (first, first + timedelta(minutes=1), 2)


def test_skip_does_not_run_what_is_too_late() -> None:
    """A daily fire of three hours ago is only accounted for."""
    rule = parse_schedule("0 9 * * *", "UTC")
    plan = plan_fires(
        rule, next_run_at=NOW.replace(hour=9, second=0), now=NOW, policy=policy(CatchUp.SKIP), start_deadline=None
    )
    assert plan.due == ()
    assert plan.missed is not None
    assert plan.missed.count == 1


def test_a_clock_that_stepped_back_fires_nothing_again() -> None:
    """The next fire stays where it was."""
    rule = parse_schedule("* * * * *", "UTC")
    ahead = NOW + timedelta(hours=1)
    plan = plan_fires(rule, next_run_at=ahead, now=NOW, policy=policy(CatchUp.ONCE), start_deadline=None)
    assert (plan.due, plan.missed, plan.next_run_at) == ((), None, ahead)


def test_a_range_of_any_length_is_counted_exactly() -> None:
    """Three months of seconds."""
    rule = parse_schedule("* * * * * *", "UTC")
    first = NOW - timedelta(days=90)
    plan = plan_fires(rule, next_run_at=first, now=NOW, policy=policy(CatchUp.ONCE), start_deadline=None)
    assert plan.missed is not None
    assert plan.missed.count == 90 * 24 * 3600
    assert (plan.missed.first, plan.missed.last) == (first, NOW - timedelta(seconds=1))


@given(
    st.sampled_from(["every 7m", "*/5 * * * *", "30 2 * * *", "*/10 2 * * *"]),
    st.timedeltas(timedelta(0), timedelta(days=3)),
    st.sampled_from(CatchUp),
    st.integers(1, 30),
    st.none() | st.timedeltas(timedelta(0), timedelta(hours=2)),
)
def test_due_and_missed_together_are_all_fires(
    text: str, away: timedelta, mode: CatchUp, max_runs: int, deadline: timedelta | None
) -> None:
    """Every fire time since next_run_at is either due or counted as missed, and never both."""
    rule = parse_schedule(text, "Europe/Berlin")
    first = rule.next_after(NOW - away - timedelta(days=1))
    assert first is not None
    plan = plan_fires(rule, next_run_at=first, now=NOW, policy=policy(mode, max_runs), start_deadline=deadline)
    every = [first, *rule.fires_between(first, NOW)]
    missed = plan.missed.count if plan.missed else 0
    assert list(plan.due) == every[missed:]
    if plan.missed:
        assert (plan.missed.first, plan.missed.last) == (every[0], every[missed - 1])
    assert plan.next_run_at == rule.next_after(NOW)
