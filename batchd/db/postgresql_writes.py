"""PostgreSQL's statements that write many rows, sent as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Connection, Table
from sqlalchemy.sql.compiler import IdentifierPreparer

from batchd.db.dialect import Copied


def new_rows(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    ending: str,
    stamped: Collection[str] = (),
    copied: Copied | None = None,
) -> str:
    """Return the INSERT of rows that are sent as JSON, in their order; `ending` is the rest of the statement."""
    preparer = connection.dialect.identifier_preparer
    name = preparer.format_table(table)
    values = {column: f"made.{column}" for column in map(preparer.quote, rows[0])}
    values |= dict.fromkeys(map(preparer.quote, stamped), "clock_timestamp()")
    origin = rows_from(name)
    if copied is not None:
        values |= {preparer.quote(name): _copy(preparer, copied.source.c[name]) for name in copied.columns}
        origin += (
            f" JOIN {preparer.format_table(copied.source)} AS source ON source.id = made.{preparer.quote(copied.by)}"
        )
    return (
        f"INSERT INTO {name} ({', '.join(values)}) "
        f"SELECT {', '.join(values.values())} {origin} ORDER BY given.place {ending}"
    )


def _copy(preparer: IdentifierPreparer, column: Column[Any]) -> str:
    """Return the column's value as it would come back from Python, where JSON's null is no document."""
    value = f"source.{preparer.quote(column.name)}"
    return f"nullif({value}, 'null')" if isinstance(column.type, JSON) else value


def rows_from(table: str) -> str:
    """Return the FROM by which rows that are sent as JSON become rows `made` of the table."""
    return (
        "FROM jsonb_array_elements(CAST(:rows AS jsonb)) WITH ORDINALITY AS given(row, place) "
        f"CROSS JOIN LATERAL jsonb_populate_record(CAST(NULL AS {table}), given.row) AS made"
    )


def sent(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the parameter that the rows are: one JSON document."""
    return {"rows": json.dumps([row if type(row) is dict else dict(row) for row in rows], default=datetime.isoformat)}
