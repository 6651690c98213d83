"""Counting by arithmetic gives what counting one by one gives, in every zone, around every change of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from batchd.domain.schedule import parse_schedule

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "Pacific/Apia",  # lost a whole day on 2011-12-30
    "Africa/Casablanca",  # two changes within a month
    "America/Havana",  # changes at midnight
    "Asia/Kathmandu",
)
CHANGES = (
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 5, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
    datetime(2026, 2, 15, 2, tzinfo=UTC),
    datetime(2026, 3, 22, 2, tzinfo=UTC),
)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """Fields of all shapes within the bounds."""
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.integers(2, 30).map(lambda step: f"*/{step}"),
        st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}"),
        st.lists(number, min_size=2, max_size=4).map(lambda some: ",".join(map(str, some))),
    )


CRON = st.tuples(field(0, 59), field(0, 23), st.sampled_from(("*", "1-15", "L", "8")), st.just("*"), field(0, 6))
WORDS = st.sampled_from(("@daily", "every 2 days at 02:30", "every sunday at 01:30", "every 7m", "0 */15 2 * * *"))


@given(
    text=st.one_of(CRON.map(" ".join), WORDS),
    zone=st.sampled_from(ZONES),
    start=st.tuples(st.sampled_from(CHANGES), st.timedeltas(timedelta(days=-3), timedelta(days=2))),
    span=st.timedeltas(timedelta(0), timedelta(days=3)),
)
def test_counting_agrees_with_looking(text: str, zone: str, start: tuple[datetime, timedelta], span: timedelta) -> None:
    """Any cron fields, any zone, any range."""
    rule = parse_schedule(text, zone)
    first = start[0] + start[1]
    last = first + span
    assert rule.count_between(first, last) == sum(1 for _ in rule.fires_between(first, last))


def test_a_year_of_minutes_is_counted_exactly() -> None:
    """A common year in a zone with summer time has as many minutes as any other."""
    rule = parse_schedule("* * * * *", "Europe/Berlin")
    first = datetime(2026, 1, 1, tzinfo=UTC)
    assert rule.count_between(first, first + timedelta(days=365)) == 365 * 24 * 60


def test_a_daily_job_counts_the_days() -> None:
    """At a time that one day lacks and another has twice."""
    rule = parse_schedule("30 2 * * *", "Europe/Berlin")
    first = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert rule.count_between(first, first + timedelta(days=365)) == 365
