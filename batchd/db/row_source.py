"""Rows of a table or of a query, in the order of a key, one range of keys at a time.

A range is looked up first (`next_boundary`: which key ends the next n rows) and read then (`rows`), maybe by another
thread in another transaction. It is a range of keys, not a list of rows, so that whatever lies in it when it is read is
read: rows with equal keys stay together, and no row is lost between two ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    literal_column,
    or_,
    select,
    text,
    true,
)
from sqlalchemy import column as core_column
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.sql.elements import quoted_name

from batchd.db.catalogue import ROWID, TableFacts, find_table
from batchd.db.estimate import check_predicate, estimated_rows
from batchd.db.identifiers import nearest
from batchd.db.keys import Carrier, Key, Keys
from batchd.db.matching import Match, matching
from batchd.errors import JobError

_LONG_STEP = 10_000


@dataclass(frozen=True, slots=True)
class RowsWanted:
    """Which rows: of a `table` (with a condition `where`) or of a `query`; by which `key`, with which `columns`.

    An empty `key` means the table's own, no `columns` means all of them. `match` says what rows must have in columns.
    """

    table: str | None = None
    query: str | None = None
    key: tuple[str, ...] = ()
    where: str | None = None
    columns: tuple[str, ...] = ()
    match: Mapping[str, Match] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `values` are those of the driver; `key` is how the walk knows the row."""

    key: Key
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows in the order of a key. Holds no connection; any thread may use it.

    `name` is for messages; `types` are those of `columns`, as the database calls them. `is_indexed` says whether an
    index serves the key's order, None when nobody knows (a query).
    """

    name: str
    dialect: str
    key_names: tuple[str, ...]
    columns: tuple[str, ...]
    types: Mapping[str, str]
    is_indexed: bool | None
    keys: Keys
    selectable: FromClause
    condition: ColumnElement[bool]
    facts: TableFacts | None

    def last_key(self, connection: Connection) -> Key | None:
        """Return the largest key that there is now, or None when there is no row."""
        return self.keys.last(connection)

    def has_null_keys(self, connection: Connection) -> bool:
        """Return whether a row has no key, so that no order reaches it."""
        if self.facts is not None:
            nullable = {column.name for column in self.facts.columns if column.nullable} - set(self.facts.key)
            if nullable.isdisjoint(self.key_names):
                return False
        without = or_(*(expression.is_(None) for expression in self.keys.order))
        one: Select[Any] = select(literal_column("1")).select_from(self.selectable).where(without, self.condition)
        return connection.execute(one.limit(1)).first() is not None

    def next_boundary(self, connection: Connection, after: Key | None, up_to: Key, rows: int) -> Key | None:
        """Return the key of the row number `rows` beyond `after`; None when none follows it up to `up_to`."""
        among = self.between(after, up_to)
        # A long step is stepped over in the server; a short one is read as the keys that it has.
        return (self.keys.nth if rows > _LONG_STEP else self.keys.boundary)(connection, among, rows)

    def rows(self, connection: Connection, after: Key | None, up_to: Key, *, lock: bool = False) -> list[Row]:
        """Return the rows beyond `after` up to and including `up_to`, in order; `lock` them for an update.

        Raises JobError for a value that Python cannot hold.
        """
        width = len(self.columns)
        try:
            found = connection.execute(self._select(after, up_to, lock=lock)).all()
        except DBAPIError as error:
            if "DataError" not in type(error.orig).__name__:
                raise
            raise JobError(
                f"a row of {self.name} has a value that Python cannot hold: {' '.join(str(error.orig).split())}",
                hint="leave its column out with `columns`",
                retryable=False,
            ) from error
        return [Row(tuple(row[width:]), dict(zip(self.columns, row[:width], strict=True))) for row in found]

    def estimate(self, connection: Connection) -> int | None:
        """Return about how many rows there are, at once and without counting them, or None."""
        return estimated_rows(connection, self.facts, self.selectable, self.condition)

    def described(self, key: Key) -> str:
        """Return the key for a message: `id=5`, `tenant=3, id=77`."""
        return ", ".join(f"{name}={_short(part)}" for name, part in zip(self.key_names, key, strict=True))

    def between(self, after: Key | None, up_to: Key) -> ColumnElement[bool]:
        """Return the condition that a row lies beyond `after`, up to and including `up_to`, and meets the condition."""
        beyond = true() if after is None else self.keys.beyond(after)
        return and_(beyond, self.keys.up_to(up_to), self.condition)

    def _select(self, after: Key | None, up_to: Key, *, lock: bool) -> Select[Any]:
        columns = [self.selectable.c[name] for name in self.columns]
        carried = [part.label(f"batchd_key_{number}") for number, part in enumerate(self.keys.carried)]
        statement = select(*columns, *carried).where(self.between(after, up_to)).order_by(*self.keys.order)
        return statement.with_for_update() if lock else statement


def find_rows(connection: Connection, wanted: RowsWanted, *, ordered: bool = True) -> RowSource:
    """Return the source; raises JobError that says what does not exist, or that there is no key to go by.

    Without `ordered` a source without a key will do, as long as nobody asks for ranges.
    """
    if wanted.query is not None:
        return _of_query(connection, wanted, wanted.query, ordered=ordered)
    assert wanted.table is not None
    facts = find_table(connection, wanted.table)
    table = facts.as_table()
    key = tuple(facts.column_named(name).name for name in wanted.key) or (row_key(facts) if ordered else ())
    expressions: dict[str, ColumnElement[Any]] = dict(table.c.items())
    if facts.has_hidden_key:
        expressions[ROWID] = literal_column(ROWID)
    condition = true() if wanted.where is None else check_predicate(connection, facts, table, wanted.where)
    named = {facts.column_named(name).name: match for name, match in wanted.match.items()}
    condition = _with_match(
        connection,
        table,
        condition,
        {name: Carrier(facts.dialect, expressions[name], facts.type_of(name)) for name in named},
        named,
    )
    columns = tuple(facts.column_named(name).name for name in wanted.columns or [each.name for each in facts.columns])
    return RowSource(
        name=f"table {wanted.table}",
        dialect=facts.dialect,
        key_names=key,
        columns=columns,
        types={name: facts.type_of(name) for name in columns},
        is_indexed=key == facts.key or any(index.columns[: len(key)] == key for index in facts.indexes),
        keys=Keys(table, [Carrier(facts.dialect, expressions[name], facts.type_of(name)) for name in key]),
        selectable=table,
        condition=condition,
        facts=facts,
    )


def _with_match(
    connection: Connection,
    rows: FromClause,
    condition: ColumnElement[bool],
    carriers: Mapping[str, Carrier],
    match: Mapping[str, Match],
) -> ColumnElement[bool]:
    """Return the condition with what columns must have; raises JobError for a value that the column's type has not."""
    if not match:
        return condition
    both = and_(condition, matching(carriers, match))
    nothing: Select[Any] = select(literal_column("1")).select_from(rows).where(both).limit(0)
    try:
        connection.execute(nothing)
    except DataError as error:
        raise JobError(
            f"`match` has a value that its column cannot have: {' '.join(str(error.orig).split())}", retryable=False
        ) from error
    return both


def row_key(facts: TableFacts) -> tuple[str, ...]:
    """Return what people know a row by: its primary key, else a unique key without NULLs, else SQLite's rowid."""
    required = {column.name for column in facts.columns if not column.nullable} | set(facts.key)
    unique = [index for index in facts.indexes if index.unique and required.issuperset(index.columns)]
    for index in sorted(unique, key=lambda index: not index.primary):
        return index.columns
    if facts.key:
        return facts.key
    raise JobError(
        f"table {facts.written} has no primary key and no unique key without NULLs, so its rows have no order",
        hint='name columns to go by: key = ["created_at"]; rows with equal values then come in one batch',
        retryable=False,
    )


def _of_query(connection: Connection, wanted: RowsWanted, query: str, *, ordered: bool) -> RowSource:
    dialect = connection.dialect.name
    types = _columns_of(connection, query)
    names = tuple(types)
    if not wanted.key and ordered:
        raise JobError("a `query` needs a `key`: the columns of its result to go by", retryable=False)
    for name in (*wanted.key, *wanted.columns, *wanted.match):
        if name not in types:
            raise JobError(
                f"the query has no column {name}",
                hint=nearest(name, names) or f"its columns are {', '.join(names[:20])}",
                retryable=False,
            )
    rows = _as_subquery(query, names)
    return RowSource(
        name="the query",
        dialect=dialect,
        key_names=wanted.key,
        columns=wanted.columns or names,
        types={name: types[name] for name in wanted.columns or names},
        is_indexed=None,
        keys=Keys(rows, [Carrier(dialect, rows.c[name], types[name]) for name in wanted.key]),
        selectable=rows,
        condition=_with_match(
            connection,
            rows,
            true(),
            {name: Carrier(dialect, rows.c[name], types[name]) for name in wanted.match},
            wanted.match,
        ),
        facts=None,
    )


def _columns_of(connection: Connection, query: str) -> dict[str, str]:
    """Return the query's columns with their types, without executing it; raises JobError for what is no query."""
    statement: Select[Any] = select(literal_column("*")).select_from(_as_subquery(query, ())).limit(0)
    try:
        with connection.execute(statement) as result:
            names = list(result.keys())
            assert result.cursor is not None
            oids = [part[1] for part in result.cursor.description]
    except DBAPIError as error:
        raise JobError(
            f"`query` is not a query: {' '.join(str(error.orig).split())}",
            hint="write one SELECT without a semicolon",
            retryable=False,
        ) from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise JobError(
            f"the query has two columns named {', '.join(twice)}", hint="rename one with AS", retryable=False
        )
    if connection.dialect.name != "postgresql":
        return dict.fromkeys(names, "")
    named = text("SELECT format_type(CAST(:oid AS oid), NULL)")
    return {
        name: str(connection.execute(named, {"oid": oid}).scalar_one()) for name, oid in zip(names, oids, strict=True)
    }


def _as_subquery(query: str, names: Sequence[str]) -> FromClause:
    """Return the query in parentheses, which lets no second statement through and nothing that writes."""
    escaped = query.strip().rstrip(";").replace(":", "\\:")
    columns: list[ColumnClause[Any]] = [core_column(quoted_name(name, quote=True)) for name in names]
    return text(f"\n{escaped}\n").columns(*columns).subquery("batchd_rows")


def _short(part: object) -> str:
    written = part.hex() if isinstance(part, bytes) else str(part)
    return written if len(written) <= 60 else written[:57] + "…"  # noqa: PLR2004 (a line of an error)
