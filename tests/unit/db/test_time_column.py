"""What is before a cutoff, in a column's own terms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, Table

from batchd.db.time_column import TimeFormat, before

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
