"""Whatever table and source hold: afterwards the table equals the source, and what was equal was not written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import text

from batchd.db.engine import Database
from tests.support.api_server import Api, api_server
from tests.support.cleaning import execute
from tests.support.databases import open_database
from tests.support.job_context import DirectContext
from tests.support.syncing import rows, sync

_KEYS = st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", "B", "é", "", " x"]))
_TEXTS = st.none() | st.sampled_from(["", "x", "X", "x ", "\\N", "tab\t", "two\nlines", "'", '"', "日本", "0", "null"])
_NUMBERS = st.none() | st.sampled_from([0, 1, -1, 2**40, 0.5, 1.25, -0.0])
_ROWS = st.dictionaries(_KEYS, st.tuples(_TEXTS, _NUMBERS, st.none() | st.booleans()), max_size=25)
_QUERY = "SELECT k, l, t, n, f FROM things ORDER BY k, l"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[Database, Api]]:
    """A database of each dialect with the table, and an API; both for all examples."""
    database = open_database(
        request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])
    )
    mark = "timestamptz" if request.param == "postgresql" else "text"
    execute(
        database,
        "CREATE TABLE things (k bigint, l text, t text, n numeric(20, 4), f boolean, writes integer DEFAULT 0, "
        f"missing_since {mark}, PRIMARY KEY (k, l))",
    )
    if request.param == "postgresql":
        execute(
            database,
            "CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN new.writes = old.writes + 1; RETURN new; END'",
            "CREATE TRIGGER counted BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION counted()",
        )
    else:
        execute(
            database,
            "CREATE TRIGGER counted AFTER UPDATE OF t, n, f, missing_since ON things "
            "BEGIN UPDATE things SET writes = old.writes + 1 WHERE k = new.k AND l = new.l; END",
        )
    with api_server() as api:
        yield database, api
    database.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=_ROWS, after=_ROWS, kept=st.integers(0, 25), removes=st.sampled_from(["ignore", "mark", "delete"]))
def test_the_table_equals_the_source_and_equal_rows_are_untouched(
    place: tuple[Database, Api], before: dict[Any, Any], after: dict[Any, Any], kept: int, removes: str
) -> None:
    """Random states before and after, some rows the same; each is written as often as it must be: once, or not."""
    database, api = place
    after = {**after, **dict(list(before.items())[:kept])}
    _fill(database, before)
    api.records = [{"k": k, "l": m, "t": t, "n": n, "f": f} for (k, m), (t, n, f) in after.items()]
    mark = {"missing_since": "missing_since"} if removes == "mark" else {}
    params = {
        "table": "things",
        "key": ["k", "l"],
        "fields": {name: name for name in "klntf"},
        "url": f"{api.url}/all",
        "on_missing": removes,
        "max_missing": "100%",
        "conditional": False,
        "batch_size": 3,
        **mark,
    }
    result = sync(database, DirectContext({"app": database}), **params)
    gone = before.keys() - after.keys()
    changed = {key for key in after.keys() & before.keys() if _plain(before[key]) != _plain(after[key])}
    stay = {} if removes == "delete" else {key: before[key] for key in gone}
    assert _state(database) == {key: _plain(value) for key, value in {**after, **stay}.items()}
    assert result["added"] == len(after.keys() - before.keys())
    assert result["changed"] == len(changed)
    assert result["removed"] == (0 if removes == "ignore" else len(gone))
    assert result["unchanged"] == len(after.keys() & before.keys()) - len(changed)
    written = changed | (gone if removes == "mark" else set())
    assert {(row[0], row[1]) for row in rows(database, "SELECT k, l, writes FROM things WHERE writes > 0")} == written
    again = sync(database, DirectContext({"app": database}), **params)
    assert (again["added"], again["changed"], again["removed"]) == (0, 0, 0)


def _fill(database: Database, before: dict[Any, Any]) -> None:
    with database.writing() as connection:
        connection.execute(text("DELETE FROM things"))
        for (k, m), (t, n, f) in before.items():
            values = {"k": k, "l": m, "t": t, "n": n, "f": f}
            connection.execute(text("INSERT INTO things (k, l, t, n, f) VALUES (:k, :l, :t, :n, :f)"), values)


def _state(database: Database) -> dict[Any, Any]:
    return {(k, m): _plain((t, n, f)) for k, m, t, n, f in rows(database, _QUERY)}


def _plain(value: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    t, n, f = value
    return t, None if n is None else float(n), None if f is None else bool(f)
