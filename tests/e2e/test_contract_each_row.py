"""each_row keeps the contract of a kind, with several batches at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from tests.support import row_targets
from tests.support.app_table import opened
from tests.support.cleaning import execute
from tests.support.kind_contract import Blows, Place, Trial, assert_dry_run_changes_nothing, assert_survives, disturbed

pytestmark = pytest.mark.timeout(600)

_PEOPLE = 600


def _prepare(place: Place) -> None:
    with opened(place.app_url) as app:
        execute(app, *row_targets.TABLES.split(";"))
        with app.writing() as connection:
            connection.execute(
                text("INSERT INTO people VALUES (:tenant, :code, :age)"),
                [{"tenant": n % 5, "code": f"c{n // 5:04}", "age": n} for n in range(_PEOPLE)],
            )


def _outcome(place: Place) -> Any:
    with opened(place.app_url) as app, app.reading() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT tenant, code FROM effects ORDER BY 1, 2"))]


TRIAL = Trial(
    {
        "kind": "each_row",
        "database": "app",
        "table": "people",
        "target": "tests.support.row_targets:record_slowly",
        "batch_size": 5,
        "parallel": 3,
    },
    _prepare,
    _outcome,
    results=("rows", "rejected"),
)


@disturbed
def test_each_row_ends_as_if_nothing_had_happened(places: Callable[[], Place], blows: Blows) -> None:
    """Daemons ended at random moments, three batches in their hands: each row has its effect once."""
    assert_survives(TRIAL, places, blows=blows, seed=5)


def test_a_dry_run_of_each_row_changes_nothing(places: Callable[[], Place]) -> None:
    """It counts, and calls nothing."""
    assert_dry_run_changes_nothing(TRIAL, places())
