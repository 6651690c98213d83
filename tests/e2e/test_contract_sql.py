"""sql keeps the contract of a kind: no statement is committed twice, however its daemons end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.app_table import opened
from tests.support.cleaning import execute, fetch
from tests.support.kind_contract import Blows, Place, Trial, assert_survives, disturbed

pytestmark = pytest.mark.timeout(600)

_STATEMENTS = 150


def _prepare(place: Place) -> None:
    with opened(place.app_url) as app:
        execute(
            app,
            "CREATE TABLE steps (number integer)",
            "CREATE TABLE total (sum integer)",
            "INSERT INTO total VALUES (0)",
        )


def _outcome(place: Place) -> Any:
    with opened(place.app_url) as app:
        return fetch(app, "SELECT number FROM steps ORDER BY number"), fetch(app, "SELECT sum FROM total")


TRIAL = Trial(
    {
        "kind": "sql",
        "database": "app",
        "transaction": "each",
        "statements": [
            statement
            for number in range(_STATEMENTS)
            for statement in (f"INSERT INTO steps VALUES ({number})", f"UPDATE total SET sum = sum + {number}")
        ],
    },
    _prepare,
    _outcome,
    results=("statements", "rows_affected"),
)


@disturbed
def test_sql_ends_as_if_nothing_had_happened(places: Callable[[], Place], blows: Blows) -> None:
    """Daemons ended at random moments: each statement has its effect once."""
    assert_survives(TRIAL, places, blows=blows, seed=11)
