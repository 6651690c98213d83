"""Records that a run could not take are kept with the chunk, bounded, and go with their run."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.engine.sweeper import Sweeper
from batchd.store.checkpoints import CheckpointKey
from batchd.store.job_schema import rejects as table
from batchd.store.meta import store_id
from batchd.store.migrate import migrate
from batchd.store.rejects import MOST_KEPT, Reject, keep, of_run, prune
from batchd.store.schema import runs
from tests.support.databases import open_database
from tests.support.job_context import STORE_ID, DirectContext
from tests.support.store_rows import add_run, add_schedule


def _rejects(count: int) -> list[Reject]:
    return [Reject("users.csv", line, "no number", key=f"u{line}", record={"age": "x"}) for line in range(2, 2 + count)]


def _kept(database: Database, context: DirectContext, count: int, *, before: int = 0) -> None:
    with database.writing() as connection:
        context.keep_rejects(connection, database, _rejects(count), before=before)


def test_rejects_are_kept_in_their_order(database: Database) -> None:
    """Each with where it was, why, and what it held; the chunk's rollback takes them back."""
    context = DirectContext({"app": database})
    _kept(database, context, 2)
    with contextlib.suppress(LookupError), database.writing() as connection:
        context.keep_rejects(connection, database, _rejects(1), before=2)
        raise LookupError
    first, second = of_run(database, STORE_ID, context.run_id)
    assert (first.number, first.source, first.position, first.key) == (1, "users.csv", 2, "u2")
    assert (second.reason, second.record) == ("no number", {"age": "x"})
    assert of_run(database, STORE_ID, context.run_id + 1_000) == ()


def test_only_the_first_of_a_run_are_kept(database: Database) -> None:
    """The others are counted by the job; a file of the wrong format does not fill the database."""
    context = DirectContext({"app": database})
    _kept(database, context, MOST_KEPT - 1)
    _kept(database, context, 50, before=MOST_KEPT - 1)
    _kept(database, context, 50, before=MOST_KEPT + 49)
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(table)).scalar_one() == MOST_KEPT


def test_no_text_is_too_odd_or_too_long_to_keep(database: Database) -> None:
    """What cannot be stored is replaced, what is long is cut: the reject itself must never fail."""
    odd = Reject("x\x00y", 1, "r" * 9_999, record={"a\x00": ["\ud800", "b" * 9_999], "n": None, "i": 5})
    context = DirectContext({"app": database})
    with database.writing() as connection:
        context.keep_rejects(connection, database, [odd], before=0)
    (row,) = of_run(database, STORE_ID, context.run_id)
    assert row.source == "x�y"
    assert len(row.reason) == 2_000
    assert isinstance(row.record, dict)
    assert (row.record["n"], row.record["i"]) == (None, 5)


@pytest.fixture
def store(database: Database) -> Database:
    """A migrated store with one job."""
    migrate(database)
    add_schedule(database)
    return database


def test_rejects_go_with_their_run(store: Database) -> None:
    """When retention has removed a run, its rejects go; those of other runs and of other stores stay."""
    mine = store_id(store)
    gone, there = add_run(store, "failed"), add_run(store, "succeeded")
    for run_id, owner in ((gone, mine), (there, mine), (gone, STORE_ID)):
        with store.writing() as connection:
            keep(connection, store, CheckpointKey(owner, run_id, 1), _rejects(3), before=0)
    with store.writing() as connection:
        connection.execute(delete(runs).where(runs.c.id == gone))
    Sweeper(store, store, mine, SystemClock()).sweep()
    assert [len(of_run(store, owner, run_id)) for run_id, owner in ((gone, mine), (there, mine), (gone, STORE_ID))] == [
        0,
        3,
        3,
    ]
    assert prune(store, store, mine) == 0


def test_a_jobs_database_that_is_away_is_swept_another_time(store: Database) -> None:
    """No error leaves the sweeper's turn."""
    clock = SteppingClock()
    with contextlib.closing(open_database("postgresql://nobody@127.0.0.1:1/nowhere")) as away:
        sweeper = Sweeper(away, store, store_id(store), clock)
        clock.forward(sweeper.run_once(clock.now()))
        assert sweeper.run_once(clock.now()) == timedelta(minutes=1)


class SteppingClock(SystemClock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def forward(self, span: timedelta) -> None:
        self._ahead += span.total_seconds()

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead
