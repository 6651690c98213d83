"""A column that says when: how it stores moments, and what "before the cutoff" is in its own terms.

The rule for every format: when a stored value stands for a stretch of time (a date, a whole second), it is before the
cutoff only if all of that stretch is. So rounding never makes a row look older than it is.

SQLite has no time type and compares values of different classes by class (every number is less than every text). There
the range that an index serves is only a first sieve, and a guard looks at each value with SQLite's own date functions.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import TypeAlias
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, Table, and_, case, func, select, true

from batchd.db.catalogue import TableFacts
from batchd.db.catalogue_facts import ColumnFacts
from batchd.errors import JobError

Carried: TypeAlias = int | float | str
"""A column's value as it travels through Python and a JSON checkpoint: text on PostgreSQL, as stored on SQLite."""

_ISO_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_ISO_GLOB = _ISO_DAY + "*"
_LENGTH_OF_DAY = 10
_SQLITE_MOMENT = "%Y-%m-%d %H:%M:%f"
_INTEGERS = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
"""Each with what is too large for it."""

_EXACT_NUMBERS = (*_INTEGERS, "numeric", "double precision", "real")


class TimeFormat(enum.StrEnum):
    """How a column stores moments."""

    TIMESTAMPTZ = "timestamptz"
    TIMESTAMP = "timestamp"
    DATE = "date"
    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    MICROSECONDS = "microseconds"
    NANOSECONDS = "nanoseconds"
    ISO_TEXT = "iso_text"


_PER_SECOND = {
    TimeFormat.SECONDS: 1,
    TimeFormat.MILLISECONDS: 10**3,
    TimeFormat.MICROSECONDS: 10**6,
    TimeFormat.NANOSECONDS: 10**9,
}
_EARLIEST, _LATEST = 10**8, 10**11
"""Epoch seconds from 1973 to 5138: the bands of the four units do not overlap."""

_FAR_AWAY = 10**30
"""Beyond any moment, in any unit; less than the largest number of any type but an integer."""

_POSTGRES_FORMATS = {
    "timestamp with time zone": TimeFormat.TIMESTAMPTZ,
    "timestamp without time zone": TimeFormat.TIMESTAMP,
    "date": TimeFormat.DATE,
}


@dataclass(frozen=True, slots=True)
class Before:
    """What is before a cutoff: `floor <= column < upper` in the column's own order, and `guard` for each row."""

    upper: Carried
    floor: Carried | None
    guard: ColumnElement[bool]


def format_of(
    connection: Connection, table: TableFacts, column: ColumnFacts, unit: TimeFormat | None
) -> TimeFormat | None:
    """Return how the column stores moments, or None when it holds no value yet.

    Numbers are told apart by their size, and only if the smallest and the largest agree; `unit` decides otherwise.
    Raises JobError for a column that holds no moments.
    """
    if table.dialect == "postgresql":
        if column.type in _POSTGRES_FORMATS:
            return _POSTGRES_FORMATS[column.type]
        if column.type not in _EXACT_NUMBERS:
            raise JobError(
                f"column {column.name} of {table.written} has type {column.type}, which says no time",
                hint="it must be timestamptz, timestamp, date, or a number of seconds or milliseconds since 1970",
                retryable=False,
            )
    if unit is not None and table.dialect == "postgresql":
        return unit
    extremes = _extremes(connection, table, column.name)
    if extremes is None:
        return None
    if all(isinstance(value, str) and _looks_like_iso(value) for value in extremes):
        return TimeFormat.ISO_TEXT
    if any(isinstance(value, str | bytes) for value in extremes):
        raise JobError(
            f"column {column.name} of {table.written} holds {extremes[0]!r} to {extremes[1]!r}, not only moments",
            hint="it must hold ISO 8601 text (2026-01-31 12:00:00) or numbers of one unit, not both",
            retryable=False,
        )
    return unit or _unit_of(table, column.name, extremes)


def before(table: Table, column: str, stored: TimeFormat, cutoff: datetime, zone: ZoneInfo) -> Before:
    """Return what is before the cutoff; `zone` is that of a column that stores local time (timestamp, date)."""
    match stored:
        case TimeFormat.TIMESTAMPTZ:
            return Before(cutoff.isoformat(), None, true())
        case TimeFormat.TIMESTAMP:
            return Before(_local_bound(cutoff, zone).isoformat(sep=" "), None, true())
        case TimeFormat.DATE:
            return Before(_local_bound(cutoff, zone).date().isoformat(), None, true())
        case TimeFormat.ISO_TEXT:
            return _before_in_text(table.c[column], cutoff)
        case TimeFormat.SECONDS | TimeFormat.MILLISECONDS | TimeFormat.MICROSECONDS | TimeFormat.NANOSECONDS:
            epoch = datetime(1970, 1, 1, tzinfo=cutoff.tzinfo)
            microseconds = (cutoff - epoch) // timedelta(microseconds=1)
            return Before(microseconds * _PER_SECOND[stored] // 10**6, None, true())


def value_ahead(type_name: str, first: Carried, second: Carried, times: float) -> str | None:
    """Return the value that is `times` as far ahead of the second as that is of the first, as PostgreSQL reads it.

    About: it is for a range that any value may end. None for a type without distances (days are too few), for moments
    that Python does not know, and where there is no distance.
    """
    try:
        if type_name.startswith("timestamp"):
            start, end = datetime.fromisoformat(str(first)), datetime.fromisoformat(str(second))
            return (end + (end - start) * times).isoformat(sep=" ") if start < end else None
        if type_name in _EXACT_NUMBERS:
            low, high = Decimal(first), Decimal(second)
            ahead = high + (high - low) * Decimal(times)
            if type_name in _INTEGERS:
                ahead = ahead.to_integral_value(ROUND_CEILING)
            return f"{ahead:f}" if high < ahead < _INTEGERS.get(type_name, _FAR_AWAY) else None
    except (ValueError, ArithmeticError):
        return None
    return None


def _before_in_text(column: ColumnElement[str], cutoff: datetime) -> Before:
    """Sieve by text up to two days later, whatever the separator or the offset; then look at each value's moment."""
    moment = cutoff.strftime("%Y-%m-%d %H:%M:%S.") + f"{cutoff.microsecond // 1000:03d}"
    is_before = case(
        (func.length(column) == _LENGTH_OF_DAY, column < moment[:_LENGTH_OF_DAY]),
        else_=func.strftime(_SQLITE_MOMENT, column) < moment,
    )
    guard = and_(func.typeof(column) == "text", column.op("GLOB")(_ISO_GLOB), is_before)
    return Before((cutoff + timedelta(days=2)).date().isoformat(), "", guard)


def _local_bound(cutoff: datetime, zone: ZoneInfo) -> datetime:
    """Return the naive local time such that every earlier one is surely before the cutoff.

    In the hour that a DST change repeats, a stored local time may be either; the bound moves back by that hour.
    """
    local = cutoff.astimezone(zone)
    first, second = (local.replace(fold=fold).utcoffset() or timedelta(0) for fold in (0, 1))
    naive = local.replace(tzinfo=None, fold=0)
    return naive - (first - second) if local.fold == 0 and first > second else naive


def _extremes(connection: Connection, table: TableFacts, column: str) -> tuple[object, object] | None:
    core = table.as_table()
    value = core.c[column]
    ordered = select(value).where(value.is_not(None)).limit(1)
    smallest = connection.execute(ordered.order_by(value)).scalar()
    largest = connection.execute(ordered.order_by(value.desc())).scalar()
    return None if smallest is None or largest is None else (smallest, largest)


def _looks_like_iso(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return len(value) >= _LENGTH_OF_DAY and value[4:5] == "-" and value[7:8] == "-"


def _unit_of(table: TableFacts, column: str, extremes: tuple[object, object]) -> TimeFormat:
    units = {
        unit
        for number in extremes
        for unit, per_second in _PER_SECOND.items()
        if _EARLIEST * per_second <= float(str(number)) < _LATEST * per_second
    }
    agreeing = [
        unit
        for unit in units
        if all(_EARLIEST * _PER_SECOND[unit] <= float(str(number)) < _LATEST * _PER_SECOND[unit] for number in extremes)
    ]
    if len(agreeing) != 1:
        raise JobError(
            f"column {column} of {table.written} holds numbers from {extremes[0]} to {extremes[1]}; "
            "their size does not say whether they are seconds or milliseconds since 1970",
            hint='set `column_unit = "seconds"` or "milliseconds" ("microseconds", "nanoseconds")',
            retryable=False,
        )
    return agreeing[0]
