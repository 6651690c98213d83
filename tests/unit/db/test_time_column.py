"""What is before a cutoff, in a column's own terms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, Table

from batchd.db.time_column import Carried, TimeFormat, before, value_ahead

_TABLE = Table("logs", MetaData(), Column("at"))
_BERLIN = ZoneInfo("Europe/Berlin")
_moments = st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001


@given(cutoff=_moments, age=st.integers(-7200, 7200))
def test_local_time_never_makes_a_row_look_older(cutoff: datetime, age: int) -> None:
    """Whatever is below the bound of a local-time column was before the cutoff, also in the hour that is repeated."""
    row = cutoff - timedelta(seconds=age)
    stored = row.astimezone(_BERLIN).replace(tzinfo=None)
    upper = before(_TABLE, "at", TimeFormat.TIMESTAMP, cutoff, _BERLIN).upper
    assert not (stored < datetime.fromisoformat(str(upper)) and row >= cutoff)


@given(cutoff=_moments, offset=st.integers(-(10**7), 10**7))
def test_numbers_never_make_a_row_look_older(cutoff: datetime, offset: int) -> None:
    """In each unit: a whole number below the bound stands for a stretch of time that is all before the cutoff."""
    row = cutoff + timedelta(microseconds=offset)
    epoch_us = (row - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for unit, size in ((TimeFormat.SECONDS, 10**6), (TimeFormat.MILLISECONDS, 10**3), (TimeFormat.MICROSECONDS, 1)):
        upper = before(_TABLE, "at", unit, cutoff, ZoneInfo("UTC")).upper
        assert isinstance(upper, int)
        assert not (epoch_us // size < upper and row >= cutoff)


@pytest.mark.parametrize(
    ("type_name", "first", "second", "times", "ahead"),
    [
        (
            "timestamp with time zone",
            "2026-01-01 00:00:00+00",
            "2026-01-01 01:00:00+00",
            1.5,
            "2026-01-01 02:30:00+00:00",
        ),
        (
            "timestamp without time zone",
            "2026-01-01 00:00:00",
            "2026-01-02 00:00:00.5",
            2,
            "2026-01-04 00:00:01.500000",
        ),
        ("bigint", "-9223372036854775808", "0", 0.5, "4611686018427387904"),
        ("bigint", "-9223372036854775808", "9000000000000000000", 0.5, None),
        ("integer", "1000000000", "2000000000", 0.5, None),
        ("real", "-3e38", "3e38", 3, None),
        ("integer", "10", "11", 0.9, "12"),
        ("numeric", "0.1", "0.3", 0.5, "0.40"),
        ("double precision", "1e9", "2e9", 1, "3000000000"),
        ("bigint", "7", "7", 3, None),
        ("numeric", "-Infinity", "7", 3, None),
        ("numeric", "NaN", "7", 3, None),
        ("timestamp with time zone", "-infinity", "2026-01-01 00:00:00+00", 1, None),
        ("timestamp with time zone", "0044-03-15 00:00:00+00 BC", "2026-01-01 00:00:00+00", 1, None),
        ("timestamp with time zone", "0001-03-15 00:00:00+00", "9026-01-01 00:00:00+00", 3, None),
        ("date", "2026-01-01", "2026-01-02", 3, None),
        ("", 5, 10, 3, None),
    ],
)
def test_a_value_ahead_is_as_far_as_its_neighbours_are_apart(
    type_name: str, first: Carried, second: Carried, times: float, ahead: str | None
) -> None:
    """What has no distance, or is no moment that Python knows, gives none."""
    assert value_ahead(type_name, first, second, times) == ahead
