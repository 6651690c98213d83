"""Rows as lines of CSV or JSON: by COPY where the server writes them, else by Python from rows."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import SimpleNamespace
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    Text,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
)

from batchd.db.copy_out import CopyFormat, copy_out
from batchd.db.row_source import RowSource

_FORMULA = r"^[=+\-@\t\r\n]"
_IS_FORMULA = re.compile(_FORMULA)
_TEXT_TYPES = ("text", "character varying", "bpchar", "character", "citext", "name")
_ROWS_AT_ONCE = 2_000

_as_json = json.JSONEncoder(ensure_ascii=False).encode

Lines = Iterator[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How lines are written. `guard` puts an apostrophe before a text that a spreadsheet would take for a formula."""

    format: str
    delimiter: str = ","
    null: str = ""
    quote_all: bool = False
    guard: bool = False


def header(source: RowSource, wanted: TextFormat) -> bytes:
    """Return the line of column names; none for JSON."""
    if wanted.format != "csv":
        return b""
    names = [_guarded(name) if wanted.guard else name for name in source.columns]
    return _csv_lines([names], wanted)


def lines(connection: Connection, source: RowSource, among: ColumnElement[bool] | None, wanted: TextFormat) -> Lines:
    """Yield the rows that meet the condition, in the order of the source's key if there is one, many lines a turn."""
    if source.dialect == "postgresql":
        copied = CopyFormat(wanted.delimiter, wanted.null, quote_all=wanted.quote_all, as_lines=wanted.format != "csv")
        return copy_out(connection, _for_copy(source, among, wanted), copied)
    return _from_rows(connection, source, among, wanted)


def plain_select(source: RowSource, among: ColumnElement[bool] | None) -> Select[Any]:
    """Return the rows as they are."""
    return _ordered(select(*(source.selectable.c[name] for name in source.columns)), source, among)


def _ordered(statement: Select[Any], source: RowSource, among: ColumnElement[bool] | None) -> Select[Any]:
    statement = statement.select_from(source.selectable).where(source.condition)
    if among is not None:
        statement = statement.where(among)
    return statement.order_by(*source.keys.order) if source.keys else statement


def _for_copy(source: RowSource, among: ColumnElement[bool] | None, wanted: TextFormat) -> Select[Any]:
    columns = [source.selectable.c[name] for name in source.columns]
    if wanted.format == "csv":
        return _ordered(
            select(*(_guard_in_sql(source, column) if wanted.guard else column for column in columns)), source, among
        )
    rows = _ordered(select(*columns), source, among).subquery("batchd_row")
    return select(func.row_to_json(literal_column("batchd_row"))).select_from(rows)


def _guard_in_sql(source: RowSource, column: ColumnElement[Any]) -> ColumnElement[Any]:
    if source.types[str(column.key)] not in _TEXT_TYPES:
        return column
    text = cast(column, Text)
    return case((text.op("~")(literal(_FORMULA, String)), literal("'", String).concat(text)), else_=text)


def _from_rows(
    connection: Connection, source: RowSource, among: ColumnElement[bool] | None, wanted: TextFormat
) -> Lines:
    result = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(plain_select(source, among))
    for rows in result.partitions():
        written = _csv_lines(rows, wanted) if wanted.format == "csv" else _json_lines(rows, source.columns)
        yield written, len(rows)


def _csv_lines(rows: Sequence[Sequence[Any]], wanted: TextFormat) -> bytes:
    """Return the rows as COPY writes them: NULL as it is told and bare, an empty text in quotes."""
    written: list[str] = []
    quoting: Literal[0, 1] = csv.QUOTE_ALL if wanted.quote_all else csv.QUOTE_MINIMAL
    # The writer quotes what is in its line's end, and no other carriage return before Python 3.13.
    sink = SimpleNamespace(write=lambda line: written.append(line[:-2]))
    write = csv.writer(sink, delimiter=wanted.delimiter, quoting=quoting, lineterminator="\r\n").writerow
    needs_care = {None, "", wanted.null, "\\."}
    if wanted.guard or bytes in set(map(type, chain.from_iterable(rows))):
        rows = [[_field(value, wanted) for value in row] for row in rows]
    for row in rows:
        if needs_care.isdisjoint(row):
            write(row)
        else:
            written.append(_careful_line(row, wanted))
    return "".join([f"{line}\n" for line in written]).encode(errors="surrogateescape")


def _field(value: Any, wanted: TextFormat) -> Any:
    if isinstance(value, str):
        return _guarded(value) if wanted.guard else value
    return _hex(value) if isinstance(value, bytes) else value


def _careful_line(values: Sequence[Any], wanted: TextFormat) -> str:
    special = {wanted.delimiter, '"', "\n", "\r"}
    parts = []
    for value in values:
        if value is None:
            parts.append(wanted.null)
            continue
        text = str(value)
        is_bare = text not in {"", wanted.null, "\\."} and not wanted.quote_all and special.isdisjoint(text)
        parts.append(text if is_bare else '"' + text.replace('"', '""') + '"')
    return wanted.delimiter.join(parts)


def _guarded(text: str) -> str:
    return f"'{text}" if _IS_FORMULA.match(text) else text


def _json_lines(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> bytes:
    if bytes in set(map(type, chain.from_iterable(rows))):
        rows = [[_hex(value) if isinstance(value, bytes) else value for value in row] for row in rows]
    written = [_as_json(dict(zip(columns, row, strict=True))) for row in rows]
    return ("\n".join(written) + "\n").encode(errors="surrogateescape") if written else b""


def _hex(value: bytes) -> str:
    return "\\x" + value.hex()
