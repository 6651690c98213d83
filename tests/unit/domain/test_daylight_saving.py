"""Daylight saving time, against an oracle that knows only offsets: every IANA zone whose offset changes, two years."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest

from batchd.domain.schedule import parse_schedule

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
END = datetime(2027, 12, 31, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def offset_at(zone: ZoneInfo, moment: datetime) -> timedelta:
    """Return the offset, straight from the time zone database."""
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def wall_at(zone: ZoneInfo, moment: datetime) -> datetime:
    """Return what a clock on the wall shows."""
    return moment.replace(tzinfo=None) + offset_at(zone, moment)


def changes_of(zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the moments from which another offset holds, found by halving weeks whose ends differ."""
    moment = START
    while moment < END:
        low, high = moment, moment + WEEK
        if offset_at(zone, low) != offset_at(zone, high):
            while high - low > MINUTE:
                middle = low + timedelta(minutes=(high - low) // MINUTE // 2)
                low, high = (middle, high) if offset_at(zone, middle) == offset_at(zone, low) else (low, middle)
            yield high
        moment += WEEK


@functools.cache
def changing() -> dict[str, tuple[datetime, ...]]:
    """Return every zone whose offset changes, with its changes."""
    found = {name: tuple(changes_of(ZoneInfo(name))) for name in sorted(available_timezones())}
    return {name: changes for name, changes in found.items() if changes}


def representatives() -> list[str]:
    """Return one zone for each way of changing: zones with the same offsets all the time are one."""
    first: dict[object, str] = {}
    for name, changes in changing().items():
        zone = ZoneInfo(name)
        first.setdefault((offset_at(zone, START), *((c, offset_at(zone, c)) for c in changes)), name)
    return sorted(first.values())


def first_shown(zone: ZoneInfo, wall: datetime, change: datetime) -> datetime:
    """Return when the wall first shows the time, near a change; for a time that it skips, the change itself."""
    by_old_offset = wall.replace(tzinfo=UTC) - offset_at(zone, change - MINUTE)
    by_new_offset = wall.replace(tzinfo=UTC) - offset_at(zone, change)
    return by_old_offset if by_old_offset < change else max(by_new_offset, change)


def seams(zone: ZoneInfo, change: datetime) -> tuple[datetime, ...]:
    """Return the times on the wall that a change makes interesting, the one in the middle first."""
    low, high = sorted((wall_at(zone, change), wall_at(zone, change - MINUTE) + MINUTE))
    return (low + (high - low) / 2, low - MINUTE, low, high - MINUTE, high, high + MINUTE)


def assert_fires_once(name: str, wall: datetime, change: datetime) -> None:
    """Check one fixed time around one change: exactly once, when the wall first shows it or right after the gap."""
    expected = first_shown(ZoneInfo(name), wall, change)
    rule = parse_schedule(f"{wall.minute} {wall.hour} * * *", name)
    fires = list(rule.fires_between(expected - DAY / 2, expected + DAY / 2))
    assert fires == [expected], f"{name}: {wall} at the change of {change}"


def test_there_are_zones_to_test() -> None:
    """The database is there, with whole hours and half ones, changes forward and back."""
    assert len(changing()) > 150
    assert {"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"} <= changing().keys()
    assert len(representatives()) > 20


def test_a_fixed_time_in_a_gap_or_a_fold_fires_once() -> None:
    """Every zone, every change: in a gap once right after it, in a fold once, the first time."""
    for name, changes in changing().items():
        for change in changes:
            assert_fires_once(name, seams(ZoneInfo(name), change)[0], change)


def test_a_fixed_time_at_the_seam_of_a_change_fires_once() -> None:
    """Every way of changing: the first and the last minute of gaps and folds, and those beside them."""
    for name in representatives():
        for change in changing()[name]:
            for wall in seams(ZoneInfo(name), change)[1:]:
                assert_fires_once(name, wall, change)


@pytest.mark.parametrize(("text", "minutes"), [("15 * * * *", {15}), ("*/20 * * * *", {0, 20, 40})])
def test_wildcards_keep_their_rhythm_through_any_change(text: str, minutes: set[int]) -> None:
    """Every zone, every change: the wait between two fires stays what it is on any other day.

    Where a change is not by whole hours (Lord Howe), the minutes themselves move against real time, once.
    """
    period = timedelta(hours=1) / len(minutes)
    for name, changes in changing().items():
        zone, rule = ZoneInfo(name), parse_schedule(text, name)
        for change in changes:
            shift = offset_at(zone, change) - offset_at(zone, change - MINUTE)
            fires = list(rule.fires_between(change - 3 * period, change + 3 * period))
            waits = {after - before for before, after in pairwise(fires)}
            assert waits - {period} <= ({period + abs(shift) % period} if shift % period else set()), f"{name} {change}"
            assert {wall_at(zone, fire).minute for fire in fires} <= minutes


def test_intervals_do_not_know_of_zones() -> None:
    """Seven minutes stay seven minutes."""
    for name in representatives():
        rule = parse_schedule("every 7m", name)
        for change in changing()[name]:
            fires = rule.fires_between(change - DAY / 12, change + DAY / 12)
            assert {after - before for before, after in pairwise(fires)} == {timedelta(minutes=7)}


@pytest.mark.parametrize("name", representatives())
def test_no_local_day_week_or_month_is_missed_or_doubled(name: str) -> None:
    """Two years for every way of changing, at the time of day that the first change swallows or doubles.

    A fire right after a gap may show the next day's date, where clocks change at midnight; it is still its own day's.
    """
    zone = ZoneInfo(name)
    at = seams(zone, changing()[name][0])[0].time()
    cron = f"{at.minute} {at.hour}"
    first = wall_at(zone, START).date() + DAY
    days = [first + n * DAY for n in range((END - START) // DAY - 1)]
    weeks = [day for day in days if day.isoweekday() == 7]
    months = [day for day in days if day.day == 1]
    for fields, nominal in ((f"{cron} * * *", days), (f"{cron} * * 0", weeks), (f"{cron} 1 * *", months)):
        begin = datetime.combine(first, time(), UTC) - offset_at(zone, START)
        fires = list(parse_schedule(fields, name).fires_between(begin, begin + len(days) * DAY))
        late = {wall_at(zone, fire) - datetime.combine(day, at) for fire, day in zip(fires, nominal, strict=True)}
        assert timedelta(0) in late
        assert all(timedelta(0) <= delay <= timedelta(hours=1) for delay in late), f"{fields}: {late}"
