"""sync keeps the contract of a kind: fetched pages, chunks of the write, rejects and watermark, each exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import inspect, text

from tests.support.api_server import Api, Reply, Request, api_server
from tests.support.app_table import opened
from tests.support.kind_contract import (
    Blows,
    Place,
    Trial,
    assert_dry_run_changes_nothing,
    assert_survives,
    disturbed,
    run_undisturbed,
)
from tests.support.syncing import FIELDS, expected, rows, user, users_table

pytestmark = pytest.mark.timeout(900)

_RECORDS = 1_500
_REJECTED = 700


@pytest.fixture
def api() -> Iterator[Api]:
    """An API that takes its time: 30 pages of 50."""
    with api_server() as server:
        server.page_size = 50
        server.records = [user(number) for number in range(1, _RECORDS + 1)]
        server.records[_REJECTED - 1]["name"] = None
        pause = threading.Event()

        def slow(_: Request) -> Reply | None:
            pause.wait(0.02)
            return None

        server.answer = slow
        yield server


def _prepare(place: Place) -> None:
    """A table in which a third is as it should be, a third differs, a third is new, and some rows are gone."""
    with opened(place.app_url) as database:
        users_table(database)
        with database.writing() as connection:
            statement = text("INSERT INTO users VALUES (:id, :name, :email, :score)")
            values: list[dict[str, Any]] = [
                {"id": n, "name": f"user {n}", "email": f"user{n}@example.org", "score": n / 4}
                for n in [*range(1, 2 * _RECORDS // 3 + 1), *range(5_001, 5_101)]
            ]
            for value in values[: _RECORDS // 3]:
                value["name"] = "old name"
            connection.execute(statement, values)


def _outcome(place: Place) -> Any:
    with opened(place.app_url) as database:
        with database.reading() as connection:
            names = set(inspect(connection).get_table_names())
            left = sorted(name for name in names if "staging" in name)
            rejects = []
            if "batchd_rejects" in names:
                rejects = connection.execute(text("SELECT number, position, key FROM batchd_rejects")).all()
        return rows(database), [tuple(row) for row in rejects], left


def _trial(api: Api) -> Trial:
    job = {
        "kind": "sync",
        "database": "app",
        "table": "users",
        "key": ["id"],
        "fields": FIELDS,
        "url": f"{api.url}/cursor",
        "records": "items",
        "paging": {"by": "cursor"},
        "on_missing": "delete",
        "batch_size": 25,
        "pause": "20ms",
    }
    counted = ("fetched", "added", "changed", "columns", "removed", "unchanged", "rejected", "duplicates", "pages")
    return Trial(job, _prepare, _outcome, results=counted)


@disturbed
def test_sync_ends_as_if_nothing_had_happened(places: Callable[[], Place], api: Api, blows: Blows) -> None:
    """Daemons ended at random moments fetch no page's records twice, write each change once and count each once."""
    assert_survives(_trial(api), places, blows=blows, seed=7)


def test_a_dry_run_of_sync_changes_nothing(places: Callable[[], Place], api: Api) -> None:
    """It fetches and compares, and leaves neither a changed row nor a staging table; the reject is shown."""
    api.records[_REJECTED - 1]["name"] = "fits"
    assert_dry_run_changes_nothing(_trial(api), places())


def test_expected_is_what_an_undisturbed_run_leaves(places: Callable[[], Place], api: Api) -> None:
    """What the disturbed runs are compared with is right: the table equals the source, but for the rejected record."""
    table, rejects, left = run_undisturbed(_trial(api), places()).outcome
    wanted = expected([record for record in api.records if record["id"] != _REJECTED])
    kept = (_REJECTED, f"user {_REJECTED}", f"user{_REJECTED}@example.org", _REJECTED / 4)
    assert table == sorted([*wanted, kept])
    assert (rejects, left) == ([(1, _REJECTED, str(_REJECTED))], [])
