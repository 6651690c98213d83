"""What the daemons say of their kinds and queues, for whoever enqueues; and runs of a queue that nobody knows."""

from __future__ import annotations

import pytest
from pydantic import ConfigDict, Field
from sqlalchemy import update

from batchd.config.param_names import param_names
from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.jobs.contract import Kind, Params
from batchd.store.known_names import KindParams, known_names, knows_queue, register, remember
from batchd.store.migrate import migrate
from batchd.store.schema import runs
from tests.support.batchd_kinds import PROBE
from tests.support.cleaning import execute, fetch
from tests.support.engine_room import engine_room
from tests.support.store_reading import wait_for_state
from tests.support.store_rows import add_run, add_schedule, add_worker, run_row
from tests.support.waiting import wait_until

ANY = KindParams(None, frozenset(), frozenset())
ONE = KindParams(frozenset({"x"}), frozenset({"x"}), frozenset())


@pytest.fixture
def store(database: Database) -> Database:
    """A store with batchd's tables."""
    migrate(database)
    return database


class Open(Params):
    """Takes whatever it is given."""

    model_config = ConfigDict(extra="allow")
    first: str = Field(alias="from", description="An alias.")


def test_the_names_of_a_kinds_params_come_from_its_model() -> None:
    """Those it takes, needs and keeps secret; a model that takes any says so."""
    assert param_names(PROBE) == KindParams(
        known=frozenset({"database", "limit", "note", "token", "headers"}),
        required=frozenset({"database"}),
        secret=frozenset({"token"}),
    )
    extra = Kind("open", "", Open, lambda _params, _context: {}, "", lambda _params: ())
    assert param_names(extra) == KindParams(None, frozenset({"from"}), frozenset())


def test_kinds_that_have_not_changed_are_only_remembered(store: Database) -> None:
    """A daemon that starts again says that it knows them still, without looking at them; others make it look."""
    assert not remember(store, ["a"], "one", [])
    register(store, {"a": ANY, "b": ONE}, ["fast"], fingerprint="one")
    assert remember(store, ["a", "b"], "one", ["slow"])
    assert not remember(store, ["a", "b"], "two", [])
    assert not remember(store, ["a", "b", "c"], "one", [])
    with store.reading() as connection:
        known = known_names(connection, [])
    assert known.kinds == {"a": ANY, "b": ONE}
    assert known.queues == {"default", "fast", "slow"}


def test_daemons_with_different_kinds_add_up(store: Database) -> None:
    """What one knows stays when another starts; what changed is replaced."""
    register(store, {"a": ANY, "b": ONE}, ["fast"])
    register(store, {"b": ANY}, ["slow"])
    add_schedule(store, "nightly")
    with store.reading() as connection:
        known = known_names(connection, ["nightly", "nope"])
    assert known.kinds == {"a": ANY, "b": ANY}
    assert known.queues == {"default", "fast", "slow"}
    assert known.jobs == {"nightly": "cleanup"}


def test_names_that_no_daemon_has_said_for_long_are_forgotten(store: Database) -> None:
    """But not while a daemon is alive that started when they were said."""
    register(store, {"old": ANY, "new": ANY}, [])
    execute(store, "UPDATE batchd_catalog SET seen_at = '2026-01-02T00:00:00.000000Z' WHERE name = 'old'")
    add_worker(store, "w1")  # has been running since 2026-01-01
    register(store, {"new": ANY}, [])
    kinds = "SELECT name FROM batchd_catalog WHERE sort = 'kind' ORDER BY name"
    assert fetch(store, kinds) == ["new", "old"]
    execute(store, "UPDATE batchd_workers SET state = 'stopped'")
    register(store, {"new": ANY}, [])
    assert fetch(store, kinds) == ["new"]


def test_a_run_of_a_queue_that_no_daemon_knows_is_quarantined(store: Database) -> None:
    """One of a queue that another daemon knows is executed; without any knowledge nothing is wrong."""
    assert knows_queue(store, "anything")
    register(store, {"noop": ANY}, ["theirs"])
    with engine_room(store, {"noop": lambda _context: {}}):
        wrong = add_run(store, job=None, kind="noop", queue="nobodys")
        right = add_run(store, job=None, kind="noop", queue="theirs")
        assert wait_for_state(store, right, RunState.SUCCEEDED).run.reason is None
        found = wait_for_state(store, wrong, RunState.QUARANTINED).run
    assert found.reason == "not_understood"
    assert "there is no queue 'nobodys'" in (found.error or "")


def test_a_run_of_a_kind_that_only_another_daemon_has_is_left_to_it(store: Database) -> None:
    """It waits, no attempt used up, for as long as that daemon lives; a kind that nobody has is quarantined at once."""
    register(store, {"noop": ANY, "theirs": ANY}, [])
    with engine_room(store, {"noop": lambda _context: {}}):
        add_worker(store, "other")
        ids = {kind: add_run(store, job=None, kind=kind) for kind in ("theirs", "nobodys")}
        wait_for_state(store, ids["nobodys"], RunState.QUARANTINED)
        wait_until(lambda: run_row(store, ids["theirs"])["reason"] == "snoozed", what="put off")
        assert run_row(store, ids["theirs"])["attempt"] == 0
        execute(store, "UPDATE batchd_workers SET state = 'stopped' WHERE id = 'other'")
        with store.writing() as connection:
            connection.execute(update(runs).values(available_at=store.dialect.now()))
        wait_for_state(store, ids["theirs"], RunState.QUARANTINED)
