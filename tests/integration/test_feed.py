"""The feed: state changes and log lines in one order, from any place on, with nothing missing and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from batchd.db.engine import Database
from batchd.domain.position import Position, parse_position
from batchd.store import feed, outbox
from batchd.store.feed import FeedHorizon, Happening, Sort, merged
from batchd.store.migrate import migrate
from tests.support.databases import open_database
from tests.support.store_rows import add_log_line, add_run, add_schedule

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def store(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated store with a job."""
    opened = open_database(request.getfixturevalue(request.param))
    migrate(opened)
    add_schedule(opened)
    yield opened
    opened.close()


def change(store: Database, run_id: int, event: str = "run.finished", state: str = "failed") -> None:
    """Write one state change."""
    with store.writing() as connection:
        outbox.add(connection, store, event, run_id, "nightly", {"state": state})


def settled(store: Database) -> Position:
    """Where the feed ends now; no writer is at work."""
    place = FeedHorizon(store).start()
    assert place is not None
    return place


def read(store: Database, after: Position, up_to: Position, limit: int = 100, run_id: int | None = None) -> list[str]:
    """What lies between two places, page by page."""
    found = []
    while after.is_behind(up_to):
        with store.reading() as connection:
            page = feed.between(connection, after, up_to, limit, run_id=run_id)
        found += [f"{placed.happening.sort} {placed.happening.id}" for placed in page.found]
        assert page.reached != after
        after = page.reached
    return found


def test_from_any_place_on_comes_exactly_the_rest(store: Database) -> None:
    """Whatever page size, and wherever a listener stopped: state changes and lines together are whole and in order."""
    run_id = add_run(store, "running")
    for number in range(7):
        change(store, run_id)
        add_log_line(store, run_id, f"line {number}")
        add_log_line(store, run_id, f"more {number}")
    end = settled(store)
    everything = read(store, Position(), end)
    assert sorted(everything) == sorted(
        [*(f"state {number}" for number in range(1, 8)), *(f"log {number}" for number in range(1, 15))]
    )
    with store.reading() as connection:
        placed = feed.between(connection, Position(), end, 100).found
    for limit in (1, 3, 100):
        for index, each in enumerate(placed):
            rest = read(store, each.position, end, limit)
            assert sorted(rest) == sorted(everything[index + 1 :]), (limit, each.position)


def test_a_runs_own_feed_has_nothing_of_others(store: Database) -> None:
    """Filtered in the database."""
    mine, other = add_run(store, "running"), add_run(store, "running")
    for run_id in (mine, other, mine):
        change(store, run_id)
        add_log_line(store, run_id, "said")
    assert sorted(read(store, Position(), settled(store), 1, mine)) == ["log 1", "log 3", "state 1", "state 3"]


def test_a_change_outlives_its_run(store: Database) -> None:
    """The outbox keeps what retention has taken the run of."""
    with store.writing() as connection:
        outbox.add(connection, store, "run.finished", 77, None, {"state": "failed", "kind": "sql", "queue": "q"})
    with store.reading() as connection:
        [placed] = feed.between(connection, Position(), settled(store), 10).found
    assert (placed.happening.run_id, placed.happening.kind, placed.happening.queue) == (77, "sql", "q")


def test_the_horizon_waits_for_lines_that_commit_late(postgres_url: str) -> None:
    """A line with a lower id that commits after one with a higher is not passed by."""
    store = open_database(postgres_url)
    migrate(store)
    add_schedule(store)
    run_id = add_run(store, "running")
    horizon = FeedHorizon(store)
    add_log_line(store, run_id, "first")
    with store.engine.connect() as late:
        late.exec_driver_sql(
            "INSERT INTO batchd_log_lines (run_id, at, level, event, message, fields)"
            f" VALUES ({run_id}, now(), 'info', 'e', 'late', '{{}}')"
        )
        add_log_line(store, run_id, "third")
        assert horizon.start() is None  # whoever begins now waits too
        assert horizon.look(Position()).lines < 2
        late.commit()
    assert horizon.look(Position()) == Position(0, 3)
    assert read(store, Position(0, 1), Position(0, 3)) == ["log 2", "log 3"]
    store.close()


def test_merging_goes_by_time_and_keeps_each_order() -> None:
    """A clock that goes backwards changes the order of neither; a full page ends where more may lie."""

    def happened(sort: Sort, number: int, second: int) -> Happening:
        at = BEGAN + timedelta(seconds=second)
        return Happening(sort, number, at, "e", 1, None, None, None, {})

    changes = [happened(Sort.STATE, 1, 5), happened(Sort.STATE, 2, 3)]
    lines = [happened(Sort.LOG, 1, 4), happened(Sort.LOG, 2, 6), happened(Sort.LOG, 3, 7)]
    page = merged(changes, lines, Position(), Position(2, 9), 10)
    assert [(each.happening.sort.value, each.happening.id) for each in page.found] == [
        ("log", 1),
        ("state", 1),
        ("state", 2),
        ("log", 2),
        ("log", 3),
    ]
    assert page.reached == Position(2, 9)
    short = merged(changes, lines, Position(), Position(9, 9), 2)
    assert short.reached == Position(2, 1)
    assert len(short.found) == 3


@pytest.mark.parametrize("written", ["", "12", "-", "1-", "-2", "1-2-3", "a-b", "1 -2", "٣-٤", f"{2**63}-1", "1" * 40])
def test_a_place_that_is_none_is_told_apart(written: str) -> None:
    """Whatever a client sends."""
    assert parse_position(written) is None


def test_a_place_reads_as_it_is_written() -> None:
    """Round trip, blanks aside."""
    assert parse_position(f" {Position(12, 3)} ") == Position(12, 3)
