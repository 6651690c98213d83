"""csv_export keeps the contract of a kind: beginning anew, and going on slice by slice."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from tests.support.app_table import opened
from tests.support.cleaning import execute
from tests.support.kind_contract import (
    Blows,
    Place,
    Trial,
    assert_dry_run_changes_nothing,
    assert_survives,
    disturbed,
    kills_of,
)

pytestmark = pytest.mark.timeout(600)

_ROWS = 800


def _prepare(place: Place) -> None:
    with opened(place.app_url) as app:
        execute(app, "CREATE TABLE people (id integer PRIMARY KEY, name text)")
        with app.writing() as connection:
            rows = [{"id": n, "name": f"name {n}, with a comma"} for n in range(_ROWS)]
            connection.execute(text("INSERT INTO people VALUES (:id, :name)"), rows)


def _outcome(place: Place) -> Any:
    folder = place.folder / "out"
    if not folder.exists():
        return None
    names = sorted(path.name for path in folder.iterdir())
    return names, [gzip.decompress((folder / name).read_bytes()) for name in names]


RESUMABLE = Trial(
    {
        "kind": "csv_export",
        "database": "app",
        "table": "people",
        "path": "out/people.csv.gz",
        "resumable": True,
        "slice_rows": 5,
    },
    _prepare,
    _outcome,
    results=("rows",),
)


@disturbed
def test_a_resumable_export_ends_as_if_nothing_had_happened(places: Callable[[], Place], blows: Blows) -> None:
    """Daemons ended at random moments: the file holds each row once, and nothing else is left beside it."""
    assert_survives(RESUMABLE, places, blows=blows, seed=13)


def test_a_whole_export_ends_as_if_nothing_had_happened(places: Callable[[], Place]) -> None:
    """It begins anew after each blow; a query that takes its time for each row leaves time to strike."""
    numbers = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 4000 + id % 2)"
    counted = f"({numbers} SELECT max(n) FROM s)"
    slow = {"sqlite": counted, "postgresql": "CAST(pg_sleep(0.002) AS text)"}[places().dialect]
    job = {
        "kind": "csv_export",
        "database": "app",
        "query": f"SELECT id, name, {slow} AS slow FROM people ORDER BY id",
        "path": "out/people.csv.gz",
    }
    whole = Trial(job, _prepare, _outcome, results=("rows",))
    assert_survives(whole, places, blows=kills_of(4), seed=17)


def test_a_dry_run_of_csv_export_changes_nothing(places: Callable[[], Place]) -> None:
    """It counts, and writes nothing."""
    assert_dry_run_changes_nothing(RESUMABLE, places())
