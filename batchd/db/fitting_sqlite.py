"""What a declared type takes on SQLite, which itself takes everything: see `batchd.db.fitting`."""

from __future__ import annotations

import enum
from typing import Any

from sqlalchemy import REAL, ColumnElement, Integer, and_, case, cast, func, literal_column, null, or_

from batchd.db.catalogue_facts import ColumnFacts
from batchd.db.types import NamedType

_TRUE = ("1", "t", "true", "y", "yes", "on")
_FALSE = ("0", "f", "false", "n", "no", "off")
_ISO_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
_LENGTH_OF_DAY = 10


class _Takes(enum.Enum):
    INTEGER = enum.auto()
    NUMBER = enum.auto()
    BOOLEAN = enum.auto()
    MOMENT = enum.auto()
    JSON = enum.auto()
    TEXT = enum.auto()


_WORDS = {
    "INT": _Takes.INTEGER,
    "CHAR": _Takes.TEXT,
    "CLOB": _Takes.TEXT,
    "TEXT": _Takes.TEXT,
    "REAL": _Takes.NUMBER,
    "FLOA": _Takes.NUMBER,
    "DOUB": _Takes.NUMBER,
    "NUMERIC": _Takes.NUMBER,
    "DECIMAL": _Takes.NUMBER,
    "BOOL": _Takes.BOOLEAN,
    "DATE": _Takes.MOMENT,
    "TIME": _Takes.MOMENT,
    "JSON": _Takes.JSON,
}
"""In SQLite's own order of affinities, so that the first word that is in the declared type decides."""


def cast_text(column: ColumnFacts, text: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the text as a value of the column's type; only for texts that fit."""
    match _takes(column):
        case _Takes.INTEGER:
            return cast(text, Integer)
        case _Takes.NUMBER:
            is_real = any(word in column.type.upper() for word in ("REAL", "FLOA", "DOUB"))
            return cast(text, REAL if is_real else NamedType("NUMERIC"))
        case _Takes.BOOLEAN:
            return case((func.lower(func.trim(text)).in_(_TRUE), 1), (text.is_not(None), 0), else_=None)
        case _Takes.MOMENT:
            return case((_is_number(text), cast(text, NamedType("NUMERIC"))), else_=text)
        case _Takes.JSON | _Takes.TEXT:
            return text


def reason(column: ColumnFacts, text: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return an expression that says why the text is no value for the column; NULL when it is one, or is NULL."""
    quoted = func.substr(text, 1, 60)
    match _takes(column):
        case _Takes.INTEGER:
            return _unless(text, _is_whole(text), func.printf('not a whole number: "%s"', quoted))
        case _Takes.NUMBER:
            return _unless(text, _is_number(text), func.printf('not a number: "%s"', quoted))
        case _Takes.BOOLEAN:
            is_word = func.lower(func.trim(text)).in_(_TRUE + _FALSE)
            return _unless(text, is_word, func.printf('neither true nor false: "%s"', quoted))
        case _Takes.MOMENT:
            return _unless(
                text, or_(_is_moment(text), _is_number(text)), func.printf('not an ISO 8601 date or time: "%s"', quoted)
            )
        case _Takes.JSON:
            return _unless(text, func.json_valid(text) == 1, func.printf('not a JSON document: "%s"', quoted))
        case _Takes.TEXT if column.max_length is not None:
            too_long = func.printf(f"longer than {column.max_length} characters: %d", func.length(text))
            return _unless(text, func.length(text) <= column.max_length, too_long)
        case _Takes.TEXT:
            return null()


def _takes(column: ColumnFacts) -> _Takes:
    declared = column.type.upper()
    return next((takes for word, takes in _WORDS.items() if word in declared), _Takes.TEXT)


def _unless(text: ColumnElement[Any], fits: ColumnElement[bool], why: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((text.is_(None), None), (fits, None), else_=why)


def _is_number(text: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether the text is a number by SQLite's own rule: a comparison with a number makes it one, else it is larger."""
    return text <= cast(literal_column("9e999"), REAL)


def _is_whole(text: ColumnElement[Any]) -> ColumnElement[bool]:
    of_64_bits = func.typeof(cast(text, NamedType("NUMERIC"))) == "integer"
    return and_(_is_number(text), text.op("NOT GLOB")("*[^-+0-9 ]*"), of_64_bits)


def _is_moment(text: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether SQLite reads the text as a moment and its day is in the calendar: it would take February 31."""
    day = func.substr(text, 1, _LENGTH_OF_DAY)
    is_read = func.julianday(text).is_not(None)
    return and_(text.op("GLOB")(_ISO_DAY), is_read, func.date(func.julianday(day)) == day)
