"""Rows on their way into a table: first as texts into a staging table, fast, then by SQL to where they belong.

A staging table has one text column for each field, and the position of each row in its source (a line, a record's
number). Texts go in as they are, by COPY on PostgreSQL and in one `executemany` on SQLite, and are cast by the
statement that moves them on; `batchd.db.fitting` finds those that cannot be.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, MetaData, Table, Text
from sqlalchemy.schema import CreateTable, DropTable
from sqlalchemy.sql.elements import quoted_name

if TYPE_CHECKING:
    from psycopg import Connection as PsycopgConnection

POSITION = "batchd_position"
TEMPORARY = "batchd_staging"

Texts: TypeAlias = Sequence[str | None]
"""The fields of one row; None is NULL."""

_NOT_A_DELIMITER = frozenset("\\\r\n.abcdefghijklmnopqrstuvwxyz0123456789")
"""What COPY takes for no delimiter, beside anything of more than one byte."""

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL = "\\N"


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row that cannot be stored: its position, and why, in plain words; `column` where one is to blame."""

    position: int
    reason: str
    column: str | None = None


class PlainRows(Sequence[Sequence[str]]):
    """Rows as lines of text in which only the delimiter means anything: no quote, no backslash, no NUL, no NULL.

    On PostgreSQL they go in as they are; taken one by one they are rows like any others.
    """

    def __init__(self, lines: Sequence[str], delimiter: str) -> None:
        self.lines = lines
        self.delimiter = delimiter

    @staticmethod
    def can_be_delimited_by(delimiter: str) -> bool:
        """Whether COPY takes the delimiter."""
        return len(delimiter.encode()) == 1 and delimiter not in _NOT_A_DELIMITER

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Sequence[str]]:
        return (line.split(self.delimiter) for line in self.lines)

    @overload
    def __getitem__(self, index: int) -> Sequence[str]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[str]]: ...
    def __getitem__(self, index: int | slice) -> Sequence[str] | Sequence[Sequence[str]]:
        if isinstance(index, slice):
            return PlainRows(self.lines[index], self.delimiter)
        return self.lines[index].split(self.delimiter)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows made ready for `Staging.add`, and those that no text column can hold."""

    rows: int
    payload: bytes | Sequence[Sequence[object]]
    misfits: tuple[Misfit, ...]
    delimiter: str = "\t"


@dataclass(frozen=True, slots=True)
class Staging:
    """A staging table; `table` has `POSITION` and the text columns."""

    table: Table

    @property
    def position(self) -> ColumnElement[int]:
        """Return the column that holds each row's position in its source."""
        return self.table.c[POSITION]

    def text(self, column: str) -> ColumnElement[str]:
        """Return a text column."""
        return self.table.c[column]

    def add(self, connection: Connection, block: Block) -> None:
        """Add the rows in the caller's transaction; raises driver errors."""
        if not block.rows:
            return
        if isinstance(block.payload, bytes):
            preparer = connection.dialect.identifier_preparer
            driver: PsycopgConnection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
            table = preparer.format_table(self.table)
            delimiter = "E'\\t'" if block.delimiter == "\t" else "'" + block.delimiter.replace("'", "''") + "'"
            command = f"COPY {table} FROM STDIN WITH (FORMAT text, DELIMITER {delimiter}, ENCODING 'UTF8')"
            with driver.cursor() as cursor, cursor.copy(command.encode()) as copy:
                copy.write(block.payload)
            return
        names = ", ".join(connection.dialect.identifier_preparer.format_column(column) for column in self.table.c)
        marks = ", ".join("?" * len(self.table.c))
        table = connection.dialect.identifier_preparer.format_table(self.table)
        rows = [tuple(row) for row in block.payload]
        connection.exec_driver_sql(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608 (own names)


def block_of(dialect: str, positions: Sequence[int], rows: Sequence[Texts]) -> Block:
    """Return the rows as the dialect takes them fastest. Any thread may call it: it needs no connection.

    A text with a NUL, or with half of a surrogate pair, is a misfit: PostgreSQL stores neither, and on SQLite the first
    cuts the text short for most readers.
    """
    misfits: tuple[Misfit, ...] = ()
    try:
        return _block(dialect, positions, rows, misfits)
    except _Unstorable:
        misfits = tuple(found for found in map(_unstorable, positions, rows) if found is not None)
        refused = {misfit.position for misfit in misfits}
        kept = [(position, row) for position, row in zip(positions, rows, strict=True) if position not in refused]
        return _block(dialect, [position for position, _ in kept], [row for _, row in kept], misfits)


@contextlib.contextmanager
def temporary_staging(connection: Connection, columns: Sequence[str]) -> Iterator[Staging]:
    """Yield an empty staging table that only this transaction sees, and drop it; one at a time in a transaction."""
    table = _table(TEMPORARY, tuple(columns), "TEMPORARY")
    connection.execute(CreateTable(table))
    yield Staging(table)
    connection.execute(DropTable(table))  # an exception rolls the transaction back, and the table with it


def drop_staging(connection: Connection, name: str) -> None:
    """Remove a staging table that outlasts its transaction; nothing happens when there is none."""
    connection.execute(DropTable(_table(name, ()), if_exists=True))


class _Unstorable(Exception):
    """Some text in the block cannot be stored."""


@functools.lru_cache(maxsize=64)
def _table(name: str, columns: tuple[str, ...], *prefixes: str) -> Table:
    """Return the table; the same one for the same columns, so that SQLAlchemy compiles each chunk's statements once."""
    return Table(
        quoted_name(name, quote=True),
        MetaData(),
        Column(POSITION, BigInteger, nullable=False),
        *(Column(quoted_name(column, quote=True), Text) for column in columns),
        prefixes=list(prefixes),
    )


def _block(dialect: str, positions: Sequence[int], rows: Sequence[Texts], misfits: tuple[Misfit, ...]) -> Block:
    if dialect == "postgresql" and isinstance(rows, PlainRows):
        mark = rows.delimiter
        payload = "\n".join([f"{position}{mark}{line}" for position, line in zip(positions, rows.lines, strict=True)])
        return Block(len(rows), (payload + "\n").encode() if rows else b"", misfits, mark)
    if dialect == "postgresql":
        return Block(len(rows), _copy_text(positions, rows), misfits)
    if any(_holds_unstorable(text) for row in rows for text in row if text and not text.isprintable()):
        raise _Unstorable
    return Block(len(rows), [(position, *row) for position, row in zip(positions, rows, strict=True)], misfits)


def _copy_text(positions: Sequence[int], rows: Sequence[Texts]) -> bytes:
    """Return COPY's text format. Most blocks hold nothing to escape, and one look at the whole shows that."""
    try:
        lines = [f"{position}\t" + "\t".join(row) for position, row in zip(positions, rows, strict=True)]  # type: ignore[arg-type]
        text = "\n".join(lines)
        fields = sum(map(len, rows))
        is_plain = text.count("\t") == fields and text.count("\n") == len(rows) - 1
        is_plain = is_plain and "\\" not in text and "\r" not in text
    except TypeError:  # a NULL among the texts
        is_plain = False
    if not is_plain:
        text = "\n".join(
            "\t".join((str(position), *(_NULL if field is None else field.translate(_ESCAPES) for field in row)))
            for position, row in zip(positions, rows, strict=True)
        )
    if "\x00" in text:
        raise _Unstorable
    try:
        return (text + "\n").encode() if rows else b""
    except UnicodeEncodeError as error:
        raise _Unstorable from error


def _unstorable(position: int, row: Texts) -> Misfit | None:
    for text in row:
        if text is not None and _holds_unstorable(text):
            what = "a NUL character" if "\x00" in text else "half of a surrogate pair"
            return Misfit(position, f"a field holds {what}, which no text can store")
    return None


def _holds_unstorable(text: str) -> bool:
    if "\x00" in text:
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
