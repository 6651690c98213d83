"""A run's result in words and tables."""

from __future__ import annotations

import pytest

from batchd.cli.result_text import print_result
from batchd.domain.result_parts import nested_parts, plain_values

RESULT = {
    "state": "ok",
    "rows": 133_333,
    "dry_run": False,
    "databases": {"app": {"error": None, "checks": [{"check": "size", "value": 4096.0}, {"check": "x", "fail": 0.5}]}},
    "tables": ["a", "b"],
    "nothing": [],
}


def test_plain_values_stand_on_lines() -> None:
    """Nested ones under their path; thousands are marked, truth is not a number."""
    assert plain_values(RESULT) == [
        ("state", "ok"),
        ("rows", "133,333"),
        ("dry_run", False),
        ("databases.app.error", None),
    ]


def test_lists_become_tables() -> None:
    """With a column for each key that any of the objects has."""
    checks, tables = nested_parts(RESULT)
    assert (checks.name, checks.headers) == ("databases.app.checks", ("check", "value", "fail"))
    assert checks.rows == [("size", "4,096", None), ("x", None, 0.5)]
    assert (tables.name, tables.rows) == ("tables", [("a",), ("b",)])


def test_what_a_query_answered_is_one_table() -> None:
    """With its columns; numbers are as they are, since they may be keys."""
    (answer,) = nested_parts({"last": {"columns": ["id", "at"], "rows": [[12345, None], [2, "x"]], "row_count": 2}})
    assert (answer.name, answer.headers) == ("last", ("id", "at"))
    assert answer.rows == [(12345, None), (2, "x")]
    (columns,) = nested_parts({"columns": ["id"], "rows": 5})
    assert (columns.name, columns.rows) == ("columns", [("id",)])


def test_a_result_is_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """No Python and no JSON in it."""
    print_result(RESULT)
    printed = capsys.readouterr().out
    assert "dry_run  false" in printed
    assert not set(printed) & set("{}'\"")
