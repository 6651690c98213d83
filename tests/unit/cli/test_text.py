"""Words for people, and stored text made safe."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchd.cli.text import cleaned, distance, span

NOW = datetime(2026, 11, 24, 3, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("plain Grüße 日本", "plain Grüße 日本"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("a\u202eb\u2066c\u200bd\ufeff", "abcd"),
        ("two\nlines\r\nand\ta tab\u2028", "two lines  and a tab "),
        ("bell\x07 and \x9b2J", "bell and 2J"),
    ],
)
def test_stored_text_cannot_move_a_terminal(stored: str, shown: str) -> None:
    """Control, bidi and invisible characters are taken out, line breaks become spaces."""
    assert cleaned(stored) == shown


def test_line_breaks_stay_where_they_are_wanted() -> None:
    """A traceback keeps its lines."""
    assert cleaned("a\nb\x1b", keep="\n") == "a\nb"


@given(st.text())
def test_whatever_was_stored_comes_out_on_one_printable_line(text: str) -> None:
    """No escape, no line break, no lone surrogate."""
    shown = cleaned(text)
    assert not set(shown) & {"\x1b", "\n", "\r", "\u202e", "\x9b"}
    shown.encode()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (0.25, "0.25s"), (12, "12s"), (60, "1m"), (200, "3m 20s"), (3600, "1h"), (187_200, "2d 4h")],
)
def test_a_span_takes_at_most_two_units(seconds: float, shown: str) -> None:
    """Precise below ten seconds, coarse above."""
    assert span(timedelta(seconds=seconds)) == shown


def test_a_distance_has_a_direction() -> None:
    """Ahead, behind, and none."""
    assert distance(NOW + timedelta(minutes=5), NOW) == "in 5m"
    assert distance(NOW - timedelta(hours=3), NOW) == "3h ago"
    assert distance(None, NOW) == "-"
