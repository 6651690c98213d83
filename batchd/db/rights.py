"""What the connection's user may do, asked before a job finds out the hard way. Reads the catalogue only."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from sqlalchemy import Connection, text

from batchd.db.catalogue import TableFacts
from batchd.db.identifiers import written

_ON_TABLE = text("SELECT has_table_privilege(to_regclass(:name), :right)")
_ON_COLUMN = text("SELECT has_column_privilege(to_regclass(:name), :column, :right)")
_TEMPORARY = text("SELECT has_database_privilege(current_database(), 'TEMP')")
_OWN_TABLE = text("SELECT to_regclass(:name) IS NOT NULL")
_CREATE = text("SELECT current_schema()::text, has_schema_privilege(current_schema(), 'CREATE')")


def missing_rights(connection: Connection, table: TableFacts, needed: Mapping[str, Collection[str]]) -> list[str]:
    """Return the rights that the user lacks, as a GRANT names them: "INSERT (email) on public.users".

    `needed` maps SELECT, INSERT, UPDATE or DELETE to the columns that it concerns; to none for the whole table.
    """
    if table.dialect != "postgresql":
        return _unwritable(connection)
    missing = []
    for right, columns in needed.items():
        about = {"name": table.written, "right": right}
        if connection.execute(_ON_TABLE, about).scalar_one():
            continue
        lacking = [
            name for name in columns if not connection.execute(_ON_COLUMN, about | {"column": name}).scalar_one()
        ]
        if lacking or not columns:
            named = f" ({', '.join(written(name) for name in lacking)})" if lacking else ""
            missing.append(f"{right}{named} on {table.written}")
    return missing


def missing_rights_to_make(connection: Connection, *own_tables: str) -> list[str]:
    """Return what the user lacks to stage rows and to make those of batchd's own tables that are not there yet."""
    if connection.dialect.name != "postgresql":
        return _unwritable(connection)
    missing = [] if connection.execute(_TEMPORARY).scalar_one() else ["TEMPORARY on the database"]
    absent = [name for name in own_tables if not connection.execute(_OWN_TABLE, {"name": name}).scalar_one()]
    schema, may_create = connection.execute(_CREATE).one()
    if absent and not may_create:
        missing.append(f"CREATE on schema {written(schema)} (for {', '.join(absent)})")
    return missing


def _unwritable(connection: Connection) -> list[str]:
    """Return what keeps a SQLite file from being written: the file's mode, or its folder's, where the WAL lies."""
    file = Path(str(connection.engine.url.database))
    return [f"write permission on {place}" for place in (file, file.parent) if not os.access(place, os.W_OK)]
