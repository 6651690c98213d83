"""What a database says about a statement without executing it: the plan, the indexes, about how many rows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ClauseElement, Connection, text
from sqlalchemy.exc import SQLAlchemyError

from batchd.db.engine import Database, driver_message
from batchd.errors import BatchdError

_ROWS = re.compile(r"rows=(\d+)")
_USED = re.compile(r"(?:Index (?:Only )?Scan(?: Backward)? using|Bitmap Index Scan on|USING (?:COVERING )?INDEX) (\S+)")
_BY_KEY = re.compile(r"USING INTEGER PRIMARY KEY")
_TABLE = r"((?:\"(?:[^\"]|\"\")+\"|[^\s\"])+)"
_SCANNED = re.compile(rf"(?:Seq Scan on|^\s*SCAN) (?!CONSTANT ROW){_TABLE}(?!\S)(?! .*USING)", re.MULTILINE)
_CHANGES = re.compile(r"(?:Insert|Update|Delete|Merge) on ")
_FILTERED_SCAN = re.compile(
    rf"Seq Scan on {_TABLE}[^\n]*\.\.(\d+)[^\n]*\n +Filter: \(+(\"?\w+\"?)\)? ?(?:::\w+\)? )?(?:[<>=]|~~|IS)"
)
_WORTH_AN_INDEX = 500
"""PostgreSQL's cost of a scan: some hundred pages, or some ten thousand rows. Below it is right to read them all."""

REFUSALS = (SQLAlchemyError,)
"""As what a database's own words leave a transaction: no such table, no right to it."""


@dataclass(frozen=True, slots=True)
class Explained:
    """`plan` as the database prints it; `scanned` are tables that it reads from end to end.

    `unserved` are the tables and columns of conditions that no index serves, where it says so and the table is large.
    `error`: it refuses the statement.
    """

    plan: tuple[str, ...]
    rows: int | None
    indexes: tuple[str, ...]
    scanned: tuple[str, ...]
    unserved: tuple[tuple[str, str], ...]
    error: str | None = None


@contextlib.contextmanager
def looking(database: Database, limit: timedelta) -> Iterator[Connection]:
    """Yield a connection on which the server refuses every write, and ends what takes longer than the limit."""
    with (
        database.reading() as connection,
        database.dialect.read_only(connection),
        database.dialect.time_limit(connection, limit),
    ):
        yield connection


def explained(database: Database, statement: Any, limit: timedelta) -> Explained:
    """Return the plan of a statement: a text clause (with its parameters) that begins with the dialect's EXPLAIN."""
    try:
        with looking(database, limit) as connection:
            lines = [str(row[-1]) for row in connection.execute(statement)]
    except (BatchdError, SQLAlchemyError) as error:
        said = error.message if isinstance(error, BatchdError) else driver_message(error)
        return Explained((), None, (), (), (), said)
    plan = "\n".join(lines)
    rows = _ROWS.findall(plan) if database.dialect.name == "postgresql" else []
    # What changes rows gives none back, and stands above what finds them.
    meant = rows[1:] if rows and _CHANGES.match(plan) else rows
    used = tuple(dict.fromkeys(_USED.findall(plan)))
    return Explained(
        plan=tuple(lines),
        rows=int(meant[0]) if meant else None,
        indexes=used or (("the primary key",) if _BY_KEY.search(plan) else ()),
        scanned=tuple(dict.fromkeys(_SCANNED.findall(plan))),
        unserved=unserved_in(plan),
    )


def unserved_in(plan: str) -> tuple[tuple[str, str], ...]:
    """Return table and column of each large scan of PostgreSQL's that chooses by a condition on the column."""
    found = ((scan[1], scan[3]) for scan in _FILTERED_SCAN.finditer(plan) if int(scan[2]) >= _WORTH_AN_INDEX)
    return tuple(dict.fromkeys(found))


def counted(database: Database, statement: Any, limit: timedelta) -> int | None:
    """Return the number that a query has for an answer, or None when that takes longer than the limit."""
    try:
        with looking(database, limit) as connection:
            return int(connection.execute(statement).scalar_one())
    except (BatchdError, SQLAlchemyError):
        return None


def written_out(connection: Connection, statement: ClauseElement) -> str:
    """Return the statement's SQL with its values in it, as a person would type it."""
    compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    return str(compiled).replace("%%", "%")


def plain_sql(sql: str) -> Any:
    """Return SQL text without parameters as something to execute; its colons are its own."""
    return text(sql.replace(":", r"\:"))
