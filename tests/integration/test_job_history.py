"""What charts are drawn from: a job's endings by part of a period, on every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from batchd.db.engine import Database
from batchd.store import job_history
from batchd.store.job_history import days_of, parts_of, strips_of
from batchd.web.pages.job_view import day_edges
from tests.support.store_rows import add_run, add_schedule, make_tables

START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def store(database: Database) -> Iterator[Database]:
    """A store with its tables and one job."""
    make_tables(database)
    add_schedule(database)
    return database


def ended(store: Database, at: datetime, state: str = "succeeded", seconds: float | None = 1) -> None:
    """Add a run that ended then, and took so long."""
    began = None if seconds is None else at - seconds * SECOND
    add_run(store, state, started_at=began, finished_at=at)


def test_a_part_begins_with_its_first_moment(store: Database) -> None:
    """What ended at an edge is in the part that begins there; what ended at the last edge is in none."""
    for at in (START - SECOND, START, START + HOUR - 0.001 * SECOND, START + HOUR, START + 2 * HOUR):
        ended(store, at)
    first, second = parts_of(store, "nightly", [START, START + HOUR, START + 2 * HOUR])
    assert (first.states, second.states) == ({"succeeded": 2}, {"succeeded": 1})


def test_durations_are_by_nearest_rank_of_what_succeeded_or_failed(store: Database) -> None:
    """Failures count among the successes, wherever they stand in order; what never ran, or was stopped, does not."""
    for seconds, state in ((1, "succeeded"), (2, "succeeded"), (3, "failed"), (4, "succeeded"), (500, "cancelled")):
        ended(store, START + seconds * SECOND, state, seconds)
    ended(store, START + SECOND, "skipped", None)
    for place in range(18):
        ended(store, START + HOUR + place * SECOND, "failed" if place == 8 else "succeeded", 10 + place)
    first, second = parts_of(store, "nightly", [START, START + HOUR, START + 2 * HOUR])
    assert first.states == {"succeeded": 3, "failed": 1, "cancelled": 1, "skipped": 1}
    assert (first.median, first.p95) == (2 * SECOND, 4 * SECOND)
    assert (second.median, second.p95) == (18 * SECOND, 27 * SECOND)


def test_a_day_in_which_the_clocks_change_has_its_own_hours(store: Database) -> None:
    """In Berlin the day of 25 October 2026 has 25 hours: its last is no part of the next day."""
    zone = ZoneInfo("Europe/Berlin")
    edges = day_edges(START, zone)
    for text in ("2026-10-24T21:59:59Z", "2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z"):
        ended(store, datetime.fromisoformat(text))
    found = {str(day.start.date()): day.states for day in days_of(store, "nightly", edges) if day.total}
    assert found == {
        "2026-10-24": {"succeeded": 1},
        "2026-10-25": {"succeeded": 2},
        "2026-10-26": {"succeeded": 1},
    }


def test_a_strip_shows_the_newest_of_a_job_that_runs_all_the_time(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job's strip is not shortened by it; a job without a run has an empty one."""
    monkeypatch.setattr(job_history, "MOST_IN_STRIP", 2)
    add_schedule(store, "idle")
    add_schedule(store, "other")
    for place in range(4):
        ended(store, START + place * HOUR)
    add_run(store, "failed", "other", finished_at=START)
    with store.reading() as connection:
        strips = strips_of(connection, store, ["other", "nightly", "idle"], START, HOUR, 4)
    assert [strip.job for strip in strips] == ["other", "nightly", "idle"]
    ok = {"succeeded": 1}
    assert [strip.parts for strip in strips] == [({"failed": 1}, {}, {}, {}), ({}, {}, ok, ok), ({}, {}, {}, {})]
