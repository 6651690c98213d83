"""SQLite's catalogue: see `batchd.db.catalogue`."""

from __future__ import annotations

import re

from sqlalchemy import Connection, text

from batchd.db.catalogue_facts import ColumnFacts, IndexFacts, Located
from batchd.db.identifiers import Name, written

_COLUMNS = text(
    'SELECT name, type, "notnull", pk, dflt_value, hidden FROM pragma_table_xinfo(:name) WHERE hidden <> 1 ORDER BY cid'
)
_GENERATED = {2, 3}
_LENGTH = re.compile(r"CHAR\w*\s*\(\s*(\d+)\s*\)", re.IGNORECASE)
_INDEXES = text('SELECT name, "unique", origin FROM pragma_index_list(:name) WHERE partial = 0 ORDER BY seq')
_INDEX_COLUMNS = text('SELECT name FROM pragma_index_xinfo(:name) WHERE "key" = 1 ORDER BY seqno')
_WITHOUT_ROWID = text("SELECT wr FROM pragma_table_list(:name) WHERE schema = 'main'")


def locate(connection: Connection, schema: Name | None, table: Name) -> Located | None:
    """Return the table of the main file that the name means; raises ValueError for a view."""
    if schema is not None and schema.text.lower() != "main":
        return None
    found = connection.execute(
        text("SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') AND lower(name) = lower(:name)"),
        {"name": table.text},
    ).one_or_none()
    if found is None:
        return None
    name, kind = found
    if kind != "table":
        raise ValueError(f"{written(name)} is a view, not a table")
    return Located(None, name, 0)


def all_tables(connection: Connection) -> list[str]:
    """Return the tables that a hint may name."""
    rows = connection.execute(
        text("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'")
    )
    return [written(name) for (name,) in rows]


def columns(connection: Connection, table: Located) -> tuple[ColumnFacts, ...]:
    """Return the columns in their order, with the types as declared."""
    integer_key = _integer_key(connection, table)
    rows = connection.execute(_COLUMNS, {"name": table.name}).all()
    return tuple(
        ColumnFacts(
            name=name,
            type=kind,
            nullable=not required,
            declared=kind,
            default=default,
            max_length=_max_length(kind),
            fills_itself=default is not None or hidden in _GENERATED or name == integer_key,
            is_writable=hidden not in _GENERATED,
        )
        for name, kind, required, _, default, hidden in rows
    )


def indexes(connection: Connection, table: Located) -> tuple[IndexFacts, ...]:
    """Return the indexes over the whole table; an INTEGER PRIMARY KEY is one although no index object stands for it."""
    found = []
    integer_key = _integer_key(connection, table)
    if integer_key is not None:
        found.append(IndexFacts((integer_key,), unique=True, primary=True))
    for name, unique, origin in connection.execute(_INDEXES, {"name": table.name}).all():
        names = tuple(connection.execute(_INDEX_COLUMNS, {"name": name}).scalars())
        if all(column is not None for column in names):
            found.append(IndexFacts(names, bool(unique), origin == "pk"))
    return tuple(found)


def key(connection: Connection, table: Located, indexes: tuple[IndexFacts, ...]) -> tuple[str, ...]:
    """Return the integer primary key, else `rowid`, else the primary key of a WITHOUT ROWID table."""
    integer_key = _integer_key(connection, table)
    if integer_key is not None:
        return (integer_key,)
    names = {column.name.lower() for column in columns(connection, table)}
    if not connection.execute(_WITHOUT_ROWID, {"name": table.name}).scalar_one() and "rowid" not in names:
        return ("rowid",)
    return next((index.columns for index in indexes if index.primary), ())


def correlation(connection: Connection, table: Located) -> dict[str, float]:  # noqa: ARG001
    """Return nothing: SQLite keeps no such statistic."""
    return {}


def _max_length(declared: str) -> int | None:
    """Return n of VARCHAR(n) and its kin: SQLite does not enforce it, whoever writes for others does."""
    found = _LENGTH.search(declared)
    return int(found[1]) if found else None


def _integer_key(connection: Connection, table: Located) -> str | None:
    keys = [row for row in connection.execute(_COLUMNS, {"name": table.name}).all() if row[3]]
    if len(keys) != 1 or keys[0][1].upper() != "INTEGER":
        return None
    if connection.execute(_WITHOUT_ROWID, {"name": table.name}).scalar_one():
        return None
    return str(keys[0][0])
