"""A converted crontab fires at the minutes at which Debian's cron would: compared with an oracle, zone by zone."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from batchd.domain.schedule import parse_schedule
from batchd.moving.crontab import read_crontab
from batchd.moving.found import Findings, FoundJob, Options, Source
from tests.support.debian_cron import Clock, entry, fire_minutes
from tests.unit.moving.golden import MACHINE

_ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu")
_FIRST, _LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 12, 31, 23, 59, tzinfo=UTC)
_AROUND, _CLOSE = timedelta(hours=20), timedelta(hours=2)
_SAMPLES = 3
_FEW = 8
_IS_FULL = os.environ.get("BATCHD_TEST_CRON") == "full"

_LINES = (
    "* * * * *", "*/5 * * * *", "*/7 * * * *", "0 * * * *", "30 * * * *", "@hourly", "@daily", "@weekly", "@monthly",
    "0 0 * * *", "30 2 * * *", "0 2 * * *", "59 1 * * *", "0 3 * * *", "15 0 * * *", "45 23 * * *", "0,30 2 * * *",
    "10-20/5 1-3 * * *", "30 1-3 * * *", "0 */2 * * *", "15 */3 * * *", "5,35 0-23/2 * * *", "30 2 * * 0", "30 2 * * 7",
    "30 2 * * sun", "0 4 1,15 * 5", "0 4 13 * fri", "0 6 */2 * 1", "0 6 1-7 * */7", "0 6 31 * *", "30 2 29 2 *",
    "0 9 * jan-mar mon,wed", "0 22 * * 1-5", "0 5 * * 5-7", "5 4 * * */2", "0 12 28-31 * *", "30 2 25 10 *",
    "7 2 * 3,10 0", "2,53 */12 */5 * 1-1/2",
    "*/10 2 * * *", "* 2 * * *", "*/20 1,3 * * 0",
)  # fmt: skip
"""The last three have a free minute and a fixed hour: the one case in which batchd differs, see below."""


@pytest.mark.parametrize("zone", _ZONES)
def test_converted_lines_fire_when_cron_would(zone: str) -> None:
    """Every line fires in the same minutes; `*/10 2 * * *` besides once right after a gap that swallows its hour."""
    lines = (*_LINES, *_random_lines(zone))
    jobs = _converted(lines, zone)
    wide, close = _clocks(zone, _AROUND), _clocks(zone, _CLOSE)
    assert [job.original for job in jobs] == [f"{line} /bin/true" for line in lines]
    for line, job in zip(lines, jobs, strict=True):
        rule = parse_schedule(str(job.settings["schedule"]), str(job.settings["timezone"]))
        for clock in wide if _is_sparse(line) else close:
            ours = set(rule.fires_between(clock.moments[0] - timedelta(seconds=1), clock.moments[-1]))
            theirs = fire_minutes(entry(line), clock)
            assert theirs <= ours, (line, zone, sorted(theirs - ours)[:3])
            allowed = clock.gap_ends() if _differs(line) else set()
            assert ours - theirs <= allowed, (line, zone, sorted(ours - theirs)[:3])


def test_the_one_difference_is_there() -> None:
    """A free minute in an hour that the gap swallows fires once, right after the gap; cron leaves it out."""
    first, last = datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 6, tzinfo=UTC)
    (job,) = _converted(("*/10 2 * * *",), "Europe/Berlin")
    rule = parse_schedule(str(job.settings["schedule"]), "Europe/Berlin")
    assert list(rule.fires_between(first, last)) == [datetime(2026, 3, 29, 1, tzinfo=UTC)]
    assert fire_minutes(entry("*/10 2 * * *"), Clock("Europe/Berlin", first, last)) == set()


def test_the_oracle_knows_the_rules_of_cron() -> None:
    """The oracle itself: fixed jobs run after the gap and once in the fold, wild ones by the new time at once."""
    spring = Clock("Europe/Berlin", datetime(2026, 3, 29, 0, tzinfo=UTC), datetime(2026, 3, 29, 3, tzinfo=UTC))
    autumn = Clock("Europe/Berlin", datetime(2026, 10, 24, 23, tzinfo=UTC), datetime(2026, 10, 25, 3, tzinfo=UTC))
    assert fire_minutes(entry("30 2 * * *"), spring) == {datetime(2026, 3, 29, 1, tzinfo=UTC)}
    assert fire_minutes(entry("30 2 * * *"), autumn) == {datetime(2026, 10, 25, 0, 30, tzinfo=UTC)}
    assert len(fire_minutes(entry("30 * * * *"), autumn)) == 4
    first_sunday = entry("0 0 1-7 * */7")
    assert [day for day in range(1, 9) if first_sunday.matches(datetime(2026, 3, day))] == [1]  # noqa: DTZ001


def _converted(lines: tuple[str, ...], zone: str) -> list[FoundJob]:
    findings = Findings()
    text = "".join(f"{line} /bin/true\n" for line in lines)
    read_crontab(Source("crontab", text.encode()), Options(zone, MACHINE), findings, with_user=False)
    return findings.jobs


def _random_lines(seed: str) -> list[str]:
    """Return a few lines that nobody thought of."""
    draw = random.Random(seed)

    def one(low: int, high: int, stars: float) -> str:
        if draw.random() < stars:
            return draw.choice(["*", f"*/{draw.randint(2, high)}"])
        first = draw.randint(low, high)
        last = draw.randint(first, high)
        return draw.choice([str(first), f"{first}-{last}", f"{first}-{last}/{draw.randint(1, 5)}", f"{first},{last}"])

    def minute() -> str:
        return draw.choice([str(draw.randint(0, 59)), f"{draw.randint(0, 29)},{draw.randint(30, 59)}", "*/15"])

    return [
        f"{minute()} {draw.choice(['1', '2', '3', '0-4', one(0, 23, 0.4)])} {one(1, 28, 0.6)} {one(1, 12, 0.7)} "
        f"{one(0, 7, 0.6)}"
        for _ in range(8)
    ]


def _clocks(zone: str, around: timedelta) -> list[Clock]:
    """Return the time around each change of the clock, and some in between; all of the two years in full."""
    if _IS_FULL:
        return [Clock(zone, _FIRST, _LAST)]
    info, at = ZoneInfo(zone), _FIRST
    middle = [_FIRST + timedelta(days=random.Random(zone).randint(1, 720))]
    while at < _LAST:
        after = at + timedelta(hours=1)
        if at.astimezone(info).utcoffset() != after.astimezone(info).utcoffset():
            middle.append(after)
        at = after
    return [Clock(zone, moment - around, moment + around) for moment in middle[:_SAMPLES]]


def _is_sparse(line: str) -> bool:
    """Whether the line fires so seldom in a day that many hours of it cost little."""
    minutes, hours = entry(line).fields[:2]
    return len(minutes) * len(hours) <= _FEW


def _differs(line: str) -> bool:
    """Whether the line has a free minute and a fixed hour."""
    minute, hour = ("0", "0") if line.startswith("@") else line.split()[:2]
    return minute.startswith("*") and not hour.startswith("*")
