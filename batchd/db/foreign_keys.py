"""Which foreign key stood in the way of a DELETE."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, column, exists, select, text
from sqlalchemy import table as core_table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import quoted_name

from batchd.db.catalogue import TableFacts
from batchd.db.identifiers import written

_BLOCKING_RULES = {"NO ACTION", "RESTRICT", "SET DEFAULT"}


@dataclass(frozen=True, slots=True)
class Reference:
    """The table that still refers to the rows, and the constraint's name (on SQLite, which has none, its columns)."""

    table: str
    constraint: str


def blocking_reference(
    connection: Connection, facts: TableFacts, table: Table, doomed: ColumnElement[bool], error: BaseException
) -> Reference | None:
    """Return what refers to the rows that `doomed` matches: the server says it, or on SQLite a look at the rows."""
    if facts.dialect == "postgresql":
        diagnosis = getattr(error.orig if isinstance(error, DBAPIError) else error, "diag", None)
        if diagnosis is None or diagnosis.constraint_name is None:
            return None
        return Reference(written(diagnosis.schema_name, diagnosis.table_name), written(diagnosis.constraint_name))
    return _first_reference(connection, facts, table, doomed)


def _first_reference(
    connection: Connection, facts: TableFacts, table: Table, doomed: ColumnElement[bool]
) -> Reference | None:
    keys = connection.execute(
        text(
            'SELECT child.name, key.id, key."from", key."to", key.on_delete '
            "FROM sqlite_schema AS child, pragma_foreign_key_list(child.name) AS key "
            "WHERE child.type = 'table' AND lower(key.\"table\") = lower(:name) ORDER BY child.name, key.id, key.seq"
        ),
        {"name": facts.name},
    ).all()
    for child, number in dict.fromkeys((row[0], row[1]) for row in keys):
        parts = [row for row in keys if (row[0], row[1]) == (child, number)]
        if parts[0][4] not in _BLOCKING_RULES:
            continue
        other = core_table(quoted_name(child, quote=True), *(column(quoted_name(row[2], quote=True)) for row in parts))
        alias = other.alias("referencing")
        pairs = [alias.c[row[2]] == table.c[row[3] or facts.key[position]] for position, row in enumerate(parts)]
        if connection.execute(select(exists().where(doomed, *pairs))).scalar_one():
            return Reference(written(child), "foreign key on " + ", ".join(row[2] for row in parts))
    return None
