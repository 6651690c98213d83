"""What a run hands on to the run that follows it."""

from __future__ import annotations

from typing import Any

import pytest

from batchd.domain.follow import first_cycle, params_for

FACTS = {"run_id": 7, "job": "export", "result": {"path": "a.csv", "rows": 3, "files": [{"name": "x"}], "none": None}}


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ({"take": ["path", "absent"]}, {"path": "a.csv"}),
        ({}, {}),
        ({"params": {}}, {}),
        ({"params": {"file": "{result.path}"}}, {"file": "a.csv"}),
        ({"params": {"n": "{result.rows}", "t": "{result.rows} of {job} {run_id}"}}, {"n": 3, "t": "3 of export 7"}),
        ({"params": {"name": "{result.files.0.name}"}}, {"name": "x"}),
        ({"params": {"all": "{result}"}}, {"all": FACTS["result"]}),
        ({"params": {"deep": {"list": ["{result.path}", 1]}}}, {"deep": {"list": ["a.csv", 1]}}),
        ({"params": {"none": "{result.none}"}}, {"none": None}),
        ({"params": {"a": "{result.files.7}", "b": "{result.path.deeper}", "c": "{result.no}", "d": 1}}, {"d": 1}),
        ({"params": {"braces": "{{result.path}}"}}, {"braces": "{result.path}"}),
    ],
)
def test_what_goes_along(then: dict[str, Any], expected: dict[str, Any]) -> None:
    """Names, depths, types; what the result does not have is left out."""
    assert params_for(then, FACTS) == expected


@pytest.mark.parametrize(
    ("followers", "circle"),
    [
        ({}, ()),
        ({"a": "b", "b": "c"}, ()),
        ({"a": "b", "b": "a"}, ("a", "b")),
        ({"a": "b", "b": "c", "c": "b"}, ("b", "c")),
        ({"a": "a"}, ("a",)),
    ],
)
def test_a_circle_is_found(followers: dict[str, str], circle: tuple[str, ...]) -> None:
    """Also one that a chain leads into."""
    assert first_cycle(followers) == circle
