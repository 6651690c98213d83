"""How many rows a predicate matches, roughly and at once: never a full count of a big table."""

from __future__ import annotations

import json
import re
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, Table, case, func, literal, literal_column, select
from sqlalchemy.exc import DBAPIError, OperationalError

from batchd.db.catalogue import ROWID, TableFacts
from batchd.db.time_column import Before
from batchd.errors import JobError

_SAMPLE_ROWS = 10_000


def estimated_matches(
    connection: Connection, facts: TableFacts, table: Table, column: str, before: Before, where: ColumnElement[bool]
) -> int | None:
    """Return about how many rows match, by the planner (PostgreSQL) or by the ends of the table (SQLite), or None."""
    if facts.dialect == "postgresql":
        matching: Select[Any] = (
            select(literal_column("1")).select_from(table).where(table.c[column] < _unknown(before), where)
        )
        return _planned_rows(connection, matching)
    if not facts.has_hidden_key and len(facts.key) != 1:
        return None
    key = facts.key_columns(table)[0]
    # Two statements: SQLite takes each from an end of the index, but scans the table for both at once.
    first, last = (
        connection.execute(select(end).select_from(table)).scalar_one() for end in (func.min(key), func.max(key))
    )
    if not isinstance(first, int) or not isinstance(last, int):
        return None
    return round((last - first + 1) * _fraction_before(connection, table.c[column], before))


def estimated_rows(
    connection: Connection, facts: TableFacts | None, source: FromClause, condition: ColumnElement[bool]
) -> int | None:
    """Return about how many rows of `source` meet the condition, or None; `facts` are those of a plain table.

    PostgreSQL's planner says it. On SQLite the ends of the key do, and for a condition the first rows of the table.
    """
    if connection.dialect.name == "postgresql":
        return _planned_rows(connection, select(literal_column("1")).select_from(source).where(condition))
    if facts is None or (not facts.has_hidden_key and len(facts.key) != 1):
        return None
    key = literal_column(ROWID) if facts.has_hidden_key else source.c[facts.key[0]]
    first, last = (
        connection.execute(select(end).select_from(source)).scalar_one() for end in (func.min(key), func.max(key))
    )
    if not isinstance(first, int) or not isinstance(last, int):
        return None
    span = last - first + 1
    head = select(case((condition, 1), else_=0).label("meets"), key.label("key")).select_from(source)
    sample = head.order_by(key).limit(_SAMPLE_ROWS).subquery()
    found, met, reached = connection.execute(
        select(func.count(), func.sum(sample.c.meets), func.max(sample.c.key)).select_from(sample)
    ).one()
    if found < _SAMPLE_ROWS:
        return int(met)
    share: float = met / (reached - first + 1)
    return round(span * share)


def check_predicate(connection: Connection, facts: TableFacts, table: Table, where: str) -> ColumnElement[bool]:
    """Return the SQL text `where` as one closed condition; raises JobError with the database's words when it is not.

    The database parses it twice, in parentheses and in a CASE. A text that breaks out of the one (`true) OR (true`)
    is a syntax error in the other, so what passes cannot reach beyond its own condition. Nothing is executed.
    """
    if facts.dialect == "sqlite":
        _refuse_unknown_quoted(facts, where)
    condition: ColumnElement[bool] = literal_column(f"(\n{where}\n)")
    in_case: ColumnElement[bool] = literal_column(f"CASE WHEN\n{where}\nTHEN 1 ELSE 0 END = 1")
    explain = "EXPLAIN" if facts.dialect == "postgresql" else "EXPLAIN QUERY PLAN"
    for form in (condition, in_case):
        statement: Select[Any] = select(literal_column("1")).select_from(table).where(form)
        try:
            connection.exec_driver_sql(f"{explain} {_as_text(connection, statement)}")
        except DBAPIError as error:
            if facts.dialect == "postgresql" and isinstance(error, OperationalError):
                raise  # the server is gone or cancelled us; it did not judge the text
            raise JobError(
                f"`where` is not a condition on {facts.written}: {' '.join(str(error.orig).split())}",
                hint="write one SQL condition, for example \"level = 'debug' AND user_id IS NULL\"",
                retryable=False,
            ) from error
    return condition


def _refuse_unknown_quoted(facts: TableFacts, where: str) -> None:
    """Refuse a double-quoted name that is no column: SQLite would silently take it for a text."""
    columns = {column.name.lower() for column in facts.columns} | {facts.name.lower()}
    without_texts = re.sub(r"'(?:[^']|'')*'", "''", where)
    for name in re.findall(r'"((?:[^"]|"")+)"', without_texts):
        if name.replace('""', '"').lower() not in columns:
            raise JobError(
                f'`where` names "{name}", but table {facts.written} has no such column',
                hint="put a text into single quotes",
                retryable=False,
            )


def _planned_rows(connection: Connection, statement: Any) -> int | None:
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {_as_text(connection, statement)}").scalar_one()
    document = json.loads(plan) if isinstance(plan, str) else plan
    return int(document[0]["Plan"]["Plan Rows"])


def _unknown(before: Before) -> ColumnElement[Any]:
    """Return the bound as an untyped literal, which takes the column's type. It is made of digits and punctuation."""
    return literal_column("'" + str(before.upper).replace("'", "''") + "'")


def _as_text(connection: Connection, statement: Any) -> str:
    """Return the statement's SQL with its values in it; percent signs stay doubled, as the driver wants them."""
    return str(statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))


def _fraction_before(connection: Connection, column: ColumnElement[Any], before: Before) -> float:
    is_text = isinstance(before.upper, str)
    value = func.julianday(column) if is_text else column
    bound: ColumnElement[Any] = func.julianday(before.upper) if is_text else literal(before.upper)
    first, last, upper = connection.execute(
        select(
            select(value).where(column.is_not(None)).order_by(column).limit(1).scalar_subquery(),
            select(value).where(column.is_not(None)).order_by(column.desc()).limit(1).scalar_subquery(),
            bound,
        )
    ).one()
    if first is None or last is None or upper is None or last <= first:
        return 1.0
    return float(min(1.0, max(0.0, (upper - first) / (last - first))))
