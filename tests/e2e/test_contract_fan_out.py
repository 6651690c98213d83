"""fan_out keeps the contract of a kind; its runs are executed, and what follows them comes once."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text

from batchd.domain.run import CreatedBy
from batchd.store import control
from batchd.store.queries import find_run
from batchd.store.schema import runs
from tests.support.app_table import opened
from tests.support.cleaning import execute
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.kind_contract import (
    Blows,
    Place,
    Trial,
    assert_dry_run_changes_nothing,
    assert_survives,
    disturbed,
    kills_of,
)
from tests.support.plugin.batchd_test_kinds import appended
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

_ROWS = 400
_FOLLOWED = 150


def _prepare(place: Place) -> None:
    _make_people(place, _ROWS)


def _make_people(place: Place, count: int) -> None:
    with opened(place.app_url) as app:
        execute(app, "CREATE TABLE people (id integer PRIMARY KEY, name text)")
        with app.writing() as connection:
            rows = [{"id": n, "name": f"p{n}"} for n in range(count)]
            connection.execute(text("INSERT INTO people VALUES (:id, :name)"), rows)


def _children(place: Place) -> Any:
    with opened(place.store_url) as store, store.reading() as connection:
        if not store.engine.dialect.has_table(connection, runs.name):
            return Counter()
        keys = connection.execute(select(runs.c.child_key, runs.c.params).where(runs.c.parent_id.is_not(None)))
        return Counter((row.child_key, str(row.params)) for row in keys)


TRIAL = Trial(
    {
        "kind": "fan_out",
        "database": "app",
        "table": "people",
        "batch_size": 5,
        # Not to be claimed before the test is over: what they do is another test's business.
        "enqueue": {"kind": "sleep", "delay": "1h", "params": {"time": "{id}s"}},
    },
    _prepare,
    _children,
    results=("rows", "queued"),
)


@disturbed
def test_fan_out_ends_as_if_nothing_had_happened(places: Callable[[], Place], blows: Blows) -> None:
    """Daemons ended at random moments: each row has one run, and the result counts each once."""
    assert_survives(TRIAL, places, blows=blows, seed=7)


def test_a_dry_run_of_fan_out_changes_nothing(places: Callable[[], Place]) -> None:
    """It counts, and queues nothing."""
    assert_dry_run_changes_nothing(TRIAL, places())


def test_what_follows_comes_once_after_all_children(places: Callable[[], Place]) -> None:
    """Daemons are killed while the fan-out, its children and the last run are at work: every effect happens once."""
    place, dice = places(), random.Random(11)
    _make_people(place, _FOLLOWED)
    with opened(place.app_url) as app:
        appended.metadata.create_all(app.engine)
    jobs: dict[str, Any] = {
        "fan": {
            "kind": "fan_out",
            "database": "app",
            "table": "people",
            "batch_size": 20,
            "enqueue": {"kind": "append", "params": {"database": "app"}},
            "on_complete": {"job": "last"},
        },
        "last": {"kind": "append", "database": "app"},
    }
    sections = {"store": {"url": place.store_url}, "databases": {"app": {"url": place.app_url}}, "jobs": jobs}
    config = write_config(place.folder, sections)
    run_id = 0
    with opened(place.store_url) as store:
        for blow in range(kills_of(20).count):
            with Daemon(config) as daemon:
                daemon.ready()
                run_id = run_id or control.trigger(store, "fan", {}, created_by=CreatedBy.CLI)
                time.sleep(dice.uniform(0.1, 1.5))
                assert daemon.code is None, blow
                daemon.kill()

        def last_runs() -> list[Any]:
            with store.reading() as connection:
                return list(connection.execute(select(runs).where(runs.c.schedule_id == "last")).all())

        with Daemon(config) as daemon:
            daemon.ready()
            wait_until(lambda: any(run.state == "succeeded" for run in last_runs()), seconds=120, what="the last run")
            assert daemon.stop() == 0
        (last,) = last_runs()
        with opened(place.app_url) as app, app.reading() as connection:
            effects = Counter(connection.execute(select(appended.c.run_id)).scalars())
        with store.reading() as connection:
            children = set(connection.execute(select(runs.c.id).where(runs.c.parent_id == run_id)).scalars())
            latest = connection.execute(
                select(runs.c.finished_at)
                .where(runs.c.parent_id == run_id)
                .order_by(runs.c.finished_at.desc())
                .limit(1)
            ).scalar_one()
        assert effects == Counter({*children, last.id})
        assert len(children) == _FOLLOWED
        assert last.created_at >= latest
        parent = find_run(store, run_id)
        assert parent is not None
        assert parent.result is not None
        assert parent.result["children"] == {"succeeded": _FOLLOWED}
    shown = batchd(config, "show", str(run_id)).stdout
    assert f"{_FOLLOWED} of {_FOLLOWED} succeeded" in shown
    listed = batchd(config, "runs", "--parent", str(run_id), "-n", "500").stdout
    assert len(listed.splitlines()) == _FOLLOWED + 1
