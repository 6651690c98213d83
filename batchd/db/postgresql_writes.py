"""PostgreSQL's statements that write many rows, sent as one JSON document; what all rows have alike is sent once."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Connection, Table
from sqlalchemy.sql.compiler import IdentifierPreparer

from batchd.db.dialect import Copied


@dataclass(frozen=True, slots=True)
class Sent:
    """Rows on their way: SQL that makes them in the server, and its parameters.

    `values` is, for each column by its quoted name, where the statement finds it; `origin` is the FROM clause, and
    `made.nth` the row's place among them.
    """

    values: Mapping[str, str]
    origin: str
    parameters: Mapping[str, str]


def sent(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], needed: Collection[str] = ()) -> Sent:
    """Return how rows, all with the same columns, get to the server; those `needed` are given for each row."""
    first = rows[0]
    same = {name: value for name, value in first.items() if name not in needed and _is_same(table.c[name], rows)}
    if len(same) == len(first):
        same.popitem()  # there are as many rows as the document has
    own = [name for name in first if name not in same]
    dialect = connection.dialect
    quote = dialect.identifier_preparer.quote
    types = ", ".join(f"{quote(name)} {table.c[name].type.compile(dialect)}" for name in own)
    origin = (
        f"FROM ROWS FROM (jsonb_to_recordset(CAST(:rows AS jsonb)) AS ({types})) "
        f"WITH ORDINALITY AS made ({', '.join(map(quote, own))}, nth) "
        f"CROSS JOIN jsonb_populate_record(CAST(NULL AS {dialect.identifier_preparer.format_table(table)}),"
        " CAST(:same AS jsonb)) AS same"
    )
    return Sent(
        values={quote(name): f"{'same' if name in same else 'made'}.{quote(name)}" for name in first},
        origin=origin,
        parameters={"rows": _json([{name: row[name] for name in own} for row in rows]), "same": _json(same)},
    )


def new_rows(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    ending: str,
    stamped: Collection[str] = (),
    copied: Copied | None = None,
) -> tuple[str, Mapping[str, str]]:
    """Return the INSERT of the rows, in their order, and its parameters; `ending` is the rest of the statement."""
    preparer = connection.dialect.identifier_preparer
    given = sent(connection, table, rows, () if copied is None else (copied.by,))
    values = dict(given.values) | dict.fromkeys(map(preparer.quote, stamped), "clock_timestamp()")
    origin = given.origin
    if copied is not None:
        values |= {preparer.quote(name): _copy(preparer, copied.source.c[name]) for name in copied.columns}
        origin += (
            f" JOIN {preparer.format_table(copied.source)} AS source ON source.id = made.{preparer.quote(copied.by)}"
        )
    statement = (
        f"INSERT INTO {preparer.format_table(table)} ({', '.join(values)}) "
        f"SELECT {', '.join(values.values())} {origin} ORDER BY made.nth {ending}"
    )
    return statement, given.parameters


def _copy(preparer: IdentifierPreparer, column: Column[Any]) -> str:
    """Return the column's value as it would come back from Python, where JSON's null is no document."""
    value = f"source.{preparer.quote(column.name)}"
    return f"nullif({value}, 'null')" if isinstance(column.type, JSON) else value


def _is_same(column: Column[Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the column's value is the same in all rows; in documents true, 1 and 1.0 are not."""
    name = column.name
    value = rows[0][name]
    if not isinstance(column.type, JSON):
        return all(row[name] == value for row in rows)
    document = _json(value)
    return all(row[name] is value or (row[name] == value and _json(row[name]) == document) for row in rows)


_json = json.JSONEncoder(default=datetime.isoformat).encode
