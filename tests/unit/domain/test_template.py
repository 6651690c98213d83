"""Places are filled in with their values' types, braces can be written, and JSON holds whatever a database has."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from batchd.domain.template import filled, places

_VALUES = {
    "id": 7,
    "name": "Ada",
    "at": datetime(2026, 5, 1, 12, tzinfo=UTC),
    "day": date(2026, 5, 1),
    "price": Decimal("0.10"),
    "uuid": UUID(int=1),
    "none": None,
    "tags": ["a", Decimal("1.5")],
    "raw": b"\x00\xff",
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{id}", 7),
        ("user {id}", "user 7"),
        ("{name} {{and}} {id}", "Ada {and} 7"),
        ("{{id}}", "{id}"),
        ("{at}", "2026-05-01T12:00:00+00:00"),
        ("{day}", "2026-05-01"),
        ("{price}", "0.10"),
        ("{uuid}", "00000000-0000-0000-0000-000000000001"),
        ("{none}", None),
        ("[{none}]", "[]"),
        ("{tags}", ["a", "1.5"]),
        ("{raw}", "00ff"),
        ({"a": ["{id}", {"b": "x{id}"}], "c": 5}, {"a": [7, {"b": "x7"}], "c": 5}),
        (True, True),
    ],
)
def test_places_are_filled_in(template: Any, expected: Any) -> None:
    """A text that is one place becomes the value, a place within a text its text."""
    assert filled(template, _VALUES) == expected


def test_text_without_places_stays() -> None:
    """Also what a value brings: it is not filled in again."""
    assert filled("{name}", {"name": "{id}"}) == "{id}"
    assert filled("say {name}", {"name": "{id}"}) == "say {id}"


def test_places_are_named_and_single_braces_refused() -> None:
    """All of them, however deep; a lone brace is a mistake."""
    assert sorted(places({"a": "{id} {name}", "b": [{"c": "{at}"}], "d": "{{no}}"})) == ["at", "id", "name"]
    for wrong in ("{id", "id}", "{{id}"):
        with pytest.raises(ValueError, match="single"):
            list(places(wrong))
