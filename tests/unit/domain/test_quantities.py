"""Durations and sizes as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchd.domain.quantities import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("30d", 2_592_000),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("2 w", 1_209_600),
    ],
)
def test_a_duration_is_read_as_written(text: str, seconds: float) -> None:
    """Units add up; a space before the unit is fine."""
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 minutes ago", "-5m", "5x", 5, None, "99999999999999w", "100001d"])
def test_anything_else_is_refused_with_advice(text: object) -> None:
    """The message names the text."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_formatted_duration_reads_back(milliseconds: int) -> None:
    """Formatting loses nothing down to a millisecond."""
    duration = timedelta(milliseconds=milliseconds)
    assert abs(parse_duration(format_duration(duration)) - duration) < timedelta(milliseconds=1)


@pytest.mark.parametrize(("text", "size"), [("64MB", 64_000_000), ("1GiB", 1 << 30), ("512", 512), ("1.5k", 1500)])
def test_a_size_is_decimal_unless_it_says_i(text: str, size: int) -> None:
    """MB is a million bytes, MiB 1,048,576."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1XB", 3])
def test_a_bad_size_is_refused(text: object) -> None:
    """The message names the text."""
    with pytest.raises(ValueError, match="size"):
        parse_size(text)
