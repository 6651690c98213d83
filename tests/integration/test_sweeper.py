"""Checkpoints stay as long as somebody may resume from them, and no longer."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import select

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.engine.sweeper import Sweeper
from batchd.store import checkpoints
from batchd.store.checkpoints import CheckpointKey
from batchd.store.job_schema import checkpoints as table
from tests.support.databases import open_database
from tests.support.engine_room import engine_config, engine_room
from tests.support.store_rows import add_run, add_schedule, make_tables
from tests.support.waiting import wait_until

MINE = str(uuid.uuid4())
THEIRS = str(uuid.uuid4())


@pytest.fixture
def store(database: Database) -> Database:
    """A store that is its own application database, with one job."""
    make_tables(database)
    add_schedule(database)
    return database


def checkpointed(database: Database) -> set[tuple[str, int]]:
    """Return whose checkpoints there are."""
    with database.reading() as connection:
        return {(row.store_id, row.run_id) for row in connection.execute(select(table))}


def test_a_sweep_keeps_what_can_be_resumed(store: Database) -> None:
    """Runs that succeeded or are gone lose their checkpoint; failed, cancelled and unfinished ones keep it."""
    ids = {state: add_run(store, state) for state in ("succeeded", "failed", "cancelled", "queued", "running")}
    gone = max(ids.values()) + 1_000
    for run_id in (*ids.values(), gone):
        checkpoints.take_over(store, CheckpointKey(MINE, run_id, 1))
    checkpoints.take_over(store, CheckpointKey(THEIRS, gone, 1))
    assert Sweeper(store, store, MINE, SystemClock()).sweep() == 2
    kept = {(MINE, ids[state]) for state in ("failed", "cancelled", "queued", "running")}
    assert checkpointed(store) == kept | {(THEIRS, gone)}


def test_a_sweep_goes_through_any_number(store: Database) -> None:
    """More checkpoints than a page holds."""
    checkpoints.ensure_table(store)
    with store.writing() as connection:
        rows = [{"store_id": MINE, "run_id": run_id, "fence": 1} for run_id in range(1_000_000, 1_001_203)]
        connection.execute(table.insert().values(updated_at=store.dialect.now()), rows)
    assert Sweeper(store, store, MINE, SystemClock()).sweep() == 1_203
    assert checkpointed(store) == set()


def test_a_database_without_checkpoints_is_left_alone(store: Database) -> None:
    """No table is made by looking."""
    assert Sweeper(store, store, MINE, SystemClock()).sweep() == 0
    assert not checkpoints.has_table(store)


def test_what_is_handed_in_is_removed_soon(store: Database) -> None:
    """The loop forgets the checkpoint of a run that succeeded, but not one that a newer attempt has taken over."""
    done, taken_over = add_run(store, "succeeded"), add_run(store, "running")
    checkpoints.take_over(store, CheckpointKey(MINE, done, 1))
    checkpoints.take_over(store, CheckpointKey(MINE, taken_over, 2))
    clock = SystemClock()
    sweeper = Sweeper(store, store, MINE, clock)
    sweeper.start()
    sweeper.forget(CheckpointKey(MINE, taken_over, 1))
    sweeper.forget(CheckpointKey(MINE, done, 1))
    wait_until(lambda: checkpointed(store) == {(MINE, taken_over)}, what="one checkpoint")
    assert sweeper.stop(clock.monotonic() + 5)


def test_an_engine_is_alive_while_a_reload_changes_its_databases(
    store: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old pool's sweeper ends at once: a daemon that took it for dead would stop, as it did now and then."""
    before, after = (open_database(database_url, name="app") for _ in range(2))
    seen: list[bool] = []
    retire = Sweeper.retire

    def retire_and_look(self: Sweeper, is_unused: Callable[[], bool]) -> None:
        retire(self, is_unused)
        wait_until(lambda: not self.is_alive, seconds=20)
        seen.append(engine.is_alive)

    monkeypatch.setattr(Sweeper, "retire", retire_and_look)
    with engine_room(store, {}, databases={"app": before}) as engine:
        engine.reconfigure(engine._settings, engine_config({}, {"app": after}), lambda: None)
        assert seen == [True]
        assert engine.is_alive
    after.close()
