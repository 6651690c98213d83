"""Numbers, changes, moments and durations as a report writes them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from batchd.jobs.reports.content import Sense
from batchd.jobs.reports.formats import Formats, decimals_of, duration, humanised, is_number_column

ENGLISH = Formats("1,234.5", UTC)
GERMAN = Formats("1.234,5", ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (1234567, "", 0, "1,234,567"),
        (Decimal("1234.5"), "€", 2, "1,234.50\xa0€"),
        (-0.5, "%", 1, "-0.5\xa0%"),
        (1_500_000, "bytes", 0, "1.5\xa0MB"),
        (999, "bytes", 0, "999\xa0bytes"),
        (3725, "seconds", 0, "1h\xa02m"),
    ],
)
def test_numbers_with_separators_and_units(value: float, unit: str, decimals: int, text: str) -> None:
    """Units stay on the line of their number."""
    assert ENGLISH.number(value, unit, decimals) == text


def test_numbers_in_other_styles() -> None:
    """As the reader's country writes them."""
    assert GERMAN.number(1234567.5, "€", 2) == "1.234.567,50\xa0€"
    assert Formats("1 234,5", UTC).number(1234567.5, "", 1) == "1\u202f234\u202f567,5"


@pytest.mark.parametrize(
    ("now", "before", "good", "arrow", "text", "sense"),
    [
        (110, 100, "up", "▲", "+10.0\xa0%", Sense.GOOD),
        (110, 100, "down", "▲", "+10.0\xa0%", Sense.BAD),
        (90, 100, "up", "▼", "\u221210.0\xa0%", Sense.BAD),
        (90, 100, "down", "▼", "\u221210.0\xa0%", Sense.GOOD),
        (90, 100, "neutral", "▼", "\u221210.0\xa0%", Sense.NEUTRAL),
        (100, 100, "up", "=", "no change", Sense.NEUTRAL),
        (0, 0, "up", "=", "no change", Sense.NEUTRAL),
        (5, 0, "up", "▲", "+5", Sense.GOOD),
        (50_000, 100, "up", "▲", "+49,900", Sense.GOOD),
        (350, 100, "up", "▲", "+250\xa0%", Sense.GOOD),
        (5, -10, "up", "▲", "+150\xa0%", Sense.GOOD),
        (0, 7, "down", "▼", "\u2212100\xa0%", Sense.GOOD),
    ],
)
def test_changes_have_a_sign_an_arrow_and_a_sense(
    now: float, before: float, good: str, arrow: str, text: str, sense: Sense
) -> None:
    """Percent where it says something, the difference from zero and for leaps."""
    change = ENGLISH.change(now, before, good)
    assert (change.arrow, change.text, change.sense) == (arrow, text, sense)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (True, "yes"),
        (datetime(2026, 7, 1, 22, 30, tzinfo=UTC), "2026-07-02 00:30"),
        (datetime(2026, 7, 1, 22, 30, 5), "2026-07-01 22:30:05"),  # noqa: DTZ001 (as a database without zones gives it)
        (date(2026, 7, 1), "2026-07-01"),
        (timedelta(seconds=90), "1m\xa030s"),
        (b"\x00\xff", "00ff"),
        ({"a": [1, "ü"]}, '{"a": [1, "ü"]}'),
        ("a\x1b[31mb", "a\ufffd[31mb"),
        ("x" * 500, "x" * 399 + "…"),
    ],
)
def test_cells_of_every_type(value: object, text: str) -> None:
    """Moments in the reader's zone, nothing invisible, nothing endless."""
    assert GERMAN.cell(value) == text


def test_a_column_of_numbers_has_one_number_of_decimals() -> None:
    """None for whole ones, two otherwise; truth values are no numbers."""
    assert decimals_of([1, None, Decimal("2.0")]) == 0
    assert decimals_of([1, Decimal("2.05"), float("nan")]) == 2
    assert decimals_of([Decimal("NaN"), Decimal("Infinity"), float("inf")]) == 0
    assert is_number_column([1, None, 2.5])
    assert not is_number_column([None])
    assert not is_number_column([True])
    assert not is_number_column([1, "2"])


def test_names_become_headings_and_lengths_become_words() -> None:
    """As a person would write them."""
    assert humanised("new_users") == "New users"
    assert [duration(timedelta(seconds=each)) for each in (0, 0.085, 2.4, 59, 200, 7500, 190_000)] == [
        "0\xa0s",
        "85\xa0ms",
        "2.4\xa0s",
        "59\xa0s",
        "3m\xa020s",
        "2h\xa05m",
        "2d\xa04h",
    ]
