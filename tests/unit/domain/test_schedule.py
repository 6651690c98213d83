"""When schedules fire: cron's rules, words, intervals, and daylight saving time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchd.domain.schedule import Rule, ScheduleError, fire_delay, parse_schedule

BERLIN = "Europe/Berlin"


def fires(rule: Rule, start: datetime, count: int) -> list[datetime]:
    """Return the next fires, written as local ISO text would be compared."""
    found = []
    moment = start
    for _ in range(count):
        following = rule.next_after(moment)
        assert following is not None
        moment = following
        found.append(moment)
    return found


def utc(text: str) -> datetime:
    """Return the moment that the ISO text means in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/5 * * * *", "2026-11-24T00:05"),
        ("30 */5 * * * *", "2026-11-24T00:00:30"),
        ("0 0 * * 0", "2026-11-29T00:00"),
        ("0 0 * * 7", "2026-11-29T00:00"),
        ("0 0 * * mon", "2026-11-30T00:00"),
        ("0 0 13 * 5", "2026-11-27T00:00"),
        ("0 0 L * *", "2026-11-30T00:00"),
        ("0 0 * * 5#2", "2026-12-11T00:00"),
        ("@hourly", "2026-11-24T01:00"),
        ("@daily", "2026-11-25T00:00"),
        ("@weekly", "2026-11-29T00:00"),
        ("@monthly", "2026-12-01T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("every 5m", "2026-11-24T00:05"),
        ("every 90 seconds", "2026-11-24T00:01:30"),
        ("every hour", "2026-11-24T01:00"),
        ("every 1w", "2026-11-30T00:00"),
        ("every day at 09:00", "2026-11-24T09:00"),
        ("every 1 day at 09:00", "2026-11-24T09:00"),
        ("every Monday at 18:30", "2026-11-30T18:30"),
        ("every weekday at 7:05", "2026-11-24T07:05"),
        ("at 2027-01-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_a_schedule_means_what_people_mean(text: str, expected: str) -> None:
    """Standard numbering, cron's OR of day and weekday, words, and the clock's own grid."""
    assert parse_schedule(text, "UTC").next_after(utc("2026-11-24T00:00")) == utc(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 0 31 2 *", "day-of-month"),
        ("0 0 30 2 1#9", "day-of-week"),
        ("* * * *", "5 fields"),
        ("61 * * * *", "minute"),
        ("@dayly", "@daily"),
        ("every 0s", "shortest"),
        ("every moonday at 10:00", "every monday"),
        ("every day at 25:00", "time of day"),
        ("at tomorrow", "at 2027"),
        ("", "5 fields"),
        ("every", "5 fields"),
        ("every 3000000d", "too seldom"),
        ("every 9999999 days at 09:00", "too seldom"),
        ("at 0001-01-01T00:00+14:00", "1900"),
        ("at 9999-12-31T23:59-12:00", "2999"),
    ],
)
def test_an_impossible_schedule_says_why(text: str, said: str) -> None:
    """The message names the fault or what to write instead."""
    with pytest.raises(ScheduleError, match=said):
        parse_schedule(text, "UTC")


def test_an_unknown_zone_is_refused() -> None:
    """With an example."""
    with pytest.raises(ScheduleError, match="Europe/Berlin"):
        parse_schedule("@daily", "Europe/Bärlin")


def test_a_fixed_time_inside_the_gap_fires_right_after_it() -> None:
    """Berlin, 29 March 2026: 02:00 becomes 03:00."""
    rule = parse_schedule("30 2 * * *", BERLIN)
    assert fires(rule, utc("2026-03-28T12:00"), 2) == [utc("2026-03-29T01:00"), utc("2026-03-30T00:30")]


def test_a_fixed_time_inside_the_fold_fires_the_first_time_only() -> None:
    """Berlin, 25 October 2026: 03:00 becomes 02:00."""
    rule = parse_schedule("30 2 * * *", BERLIN)
    assert fires(rule, utc("2026-10-24T12:00"), 2) == [utc("2026-10-25T00:30"), utc("2026-10-26T01:30")]


@pytest.mark.parametrize("start", ["2026-03-29T00:00", "2026-10-24T23:00"])
@pytest.mark.parametrize("text", ["*/20 * * * *", "every 20m", "0 */20 * * * *"])
def test_wildcards_and_intervals_keep_their_rhythm(text: str, start: str) -> None:
    """Twenty minutes stay twenty minutes through both changes."""
    found = fires(parse_schedule(text, BERLIN), utc(start), 18)
    assert {after - before for before, after in pairwise(found)} == {timedelta(minutes=20)}


def test_a_swallowed_hour_with_a_free_minute_fires_once_after_the_gap() -> None:
    """No local day is missed, even when its only hour does not exist."""
    rule = parse_schedule("*/10 2 * * *", BERLIN)
    assert fires(rule, utc("2026-03-28T12:00"), 2) == [utc("2026-03-29T01:00"), utc("2026-03-30T00:00")]


def test_a_step_from_a_number_to_itself_is_that_number() -> None:
    """`1-1/2` is Monday alone, as cron reads it, not each second day from Monday on."""
    rule = parse_schedule("5-5/10 0 * * 1-1/2", "UTC")
    fires = list(rule.fires_between(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 14, tzinfo=UTC)))
    assert fires == [datetime(2026, 1, day, 0, 5, tzinfo=UTC) for day in (5, 12)]


def test_every_n_days_is_the_same_after_a_restart() -> None:
    """The days are counted from a fixed one, not from the start of the daemon."""
    rule = parse_schedule("every 3 days at 09:00", BERLIN)
    whole = fires(rule, utc("2026-01-01T00:00"), 40)
    assert whole[20:] == fires(rule, whole[19] + timedelta(hours=1), 20)


@pytest.mark.parametrize(
    "zone",
    ["Australia/Lord_Howe", "Europe/Dublin", "Africa/Casablanca", "America/Havana", "Asia/Beirut", "Africa/Cairo"],
)
@pytest.mark.parametrize("text", ["0 0 * * *", "30 2 * * *", "15 23 * * *"])
def test_no_local_day_is_missed_or_doubled(zone: str, text: str) -> None:
    """Half-hour changes, negative daylight saving, gaps at midnight."""
    rule, local = parse_schedule(text, zone), ZoneInfo(zone)
    moments = rule.fires_between(utc("2026-01-01T12:00"), utc("2027-12-31T12:00"))
    days = [moment.astimezone(local).date() for moment in moments]
    assert {after - before for before, after in pairwise(days)} == {timedelta(days=1)}


moments = st.datetimes(
    datetime(2020, 1, 1),  # noqa: DTZ001 (hypothesis adds the zone)
    datetime(2030, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
texts = st.sampled_from(
    ["*/7 * * * *", "30 2 * * *", "0 0 29 2 *", "*/10 2 * * *", "every 7m", "every sunday at 02:30", "5 1,2,3 * * *"]
)


@given(texts, moments, st.sampled_from([BERLIN, "America/New_York", "Asia/Tokyo", "Australia/Lord_Howe"]))
def test_the_next_fire_is_later_and_nothing_lies_between(text: str, moment: datetime, zone: str) -> None:
    """Asking again from any moment before the fire gives the same fire: a restart changes nothing."""
    rule = parse_schedule(text, zone)
    fire = rule.next_after(moment)
    assert fire is not None
    assert fire > moment
    assert rule.next_after(moment + (fire - moment) / 2) == fire
    assert rule.next_after(fire - timedelta(microseconds=1)) == fire


@given(st.text(), moments)
def test_jitter_is_repeatable_and_bounded(seed: str, fire: datetime) -> None:
    """The same fire of the same schedule always waits equally long."""
    delay = fire_delay(seed, fire, timedelta(minutes=5))
    assert timedelta(0) <= delay < timedelta(minutes=5)
    assert delay == fire_delay(seed, fire, timedelta(minutes=5))


def test_once_fires_once() -> None:
    """Before its moment, and never again."""
    rule = parse_schedule("at 2027-01-01T00:00", BERLIN)
    found = list(takewhile(lambda fire: fire is not None, [rule.next_after(utc("2026-12-31T00:00"))]))
    assert found == [utc("2026-12-31T23:00")]
    assert rule.next_after(utc("2026-12-31T23:00")) is None
