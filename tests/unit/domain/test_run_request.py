"""A request to queue a run is checked at once, as far as that needs no store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchd.domain.run_request import RunRequest
from batchd.errors import EnqueueRefused

NINE = datetime(2027, 1, 1, 9, tzinfo=UTC)


def test_the_document_holds_what_was_said_and_nothing_else() -> None:
    """Spans become seconds, moments UTC."""
    assert json.loads(RunRequest("a").document) == {"name": "a", "params": {}}
    request = RunRequest(
        "a",
        {"x": [1, None, "ü"]},
        at=NINE.astimezone(timezone(timedelta(hours=1))),
        priority=0,
        retry_delay=timedelta(seconds=2),
        timeout="1h30m",
        unique_key="k",
        unique_period=60,
        tags=("b",),
        metadata={"c": {}},
    )
    assert json.loads(request.document) == {
        "name": "a",
        "params": {"x": [1, None, "ü"]},
        "at": "2027-01-01T09:00:00+00:00",
        "priority": 0,
        "retry": {"delay_seconds": 2.0},
        "timeout": 5400.0,
        "unique_key": "k",
        "unique_period": 60.0,
        "on_conflict": "keep",
        "tags": ["b"],
        "metadata": {"c": {}},
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "name must be a text"),
        ({"name": "a\ud800"}, "name is no text that can be stored"),
        ({"params": [1]}, "params must be a mapping"),
        ({"params": {"a": NINE}}, "params hold what is not JSON"),
        ({"params": {"a": float("nan")}}, "params hold what is not JSON"),
        ({"params": {"a": "\x00"}}, "NUL"),
        ({"params": {"a": "\ud800"}}, "not JSON"),
        ({"queue": 5}, "queue must be a text"),
        ({"priority": 1.5}, "priority must be a whole number from -1000 to 1000"),
        ({"priority": True}, "priority must be a whole number"),
        ({"max_attempts": 0}, "max_attempts must be a whole number from 1 to 1000"),
        ({"at": datetime(2027, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"at": "tomorrow"}, "is not ISO 8601"),
        ({"at": 5}, "at must be a datetime"),
        ({"at": NINE, "delay": 5}, "either at or delay"),
        ({"delay": "soon"}, "delay: not a duration"),
        ({"delay": -1}, "delay must be from 0"),
        ({"delay": float("inf")}, "delay must be from 0"),
        ({"delay": True}, "delay must be a timedelta"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"backoff": "quadratic"}, "backoff must be one of exponential, linear, fixed"),
        ({"jitter": 1.1}, "jitter must be a number from 0 to 1"),
        ({"unique_key": "x" * 201}, "unique_key has 201 characters; 200 is the most"),
        ({"unique_period": 5}, "need a unique_key"),
        ({"on_conflict": "replace"}, "need a unique_key"),
        ({"unique_key": "k", "on_conflict": "drop"}, "on_conflict must be one of keep, replace"),
        ({"tags": "abc"}, "tags must be a list"),
        ({"tags": [""]}, "a tag must be a text"),
        ({"tags": ["x"] * 51}, "at most 50"),
        ({"metadata": {"a": {1, 2}}}, "metadata hold what is not JSON"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    """With the option and the reason."""
    with pytest.raises(EnqueueRefused) as raised:
        RunRequest(**{"name": "a", **options})
    assert said in raised.value.message


def test_a_backslash_is_no_nul() -> None:
    """Text that only looks like an escaped NUL is fine."""
    assert json.loads(RunRequest("a", {"x": "\\u0000"}).document)["params"] == {"x": "\\u0000"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _JSON), st.text(min_size=1))
def test_any_json_goes_through_or_is_refused(params: dict[str, Any], name: str) -> None:
    """The document is JSON, with the params as they were; what no database stores is refused."""
    try:
        document = RunRequest(name, params).document
    except EnqueueRefused:
        assert "\x00" in name + json.dumps(params, ensure_ascii=False).replace("\\u0000", "\x00") or _surrogate(
            name + json.dumps(params, ensure_ascii=False)
        )
        return
    assert json.loads(document) == {"name": name, "params": params}


def _surrogate(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)
