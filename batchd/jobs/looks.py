"""What a kind's run would do, said before it does it: `Kind.look` gives it, `batchd explain` shows it.

A look reads catalogues and plans statements; it executes nothing that the job would execute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from batchd.db.catalogue import TableFacts
from batchd.db.engine import Database
from batchd.db.explained import plain_sql, written_out
from batchd.db.identifiers import written
from batchd.db.row_source import RowSource, RowsWanted, find_rows

_DDL = frozenset(
    {"CREATE", "ALTER", "DROP", "TRUNCATE", "REINDEX", "CLUSTER", "REFRESH", "LOCK", "COMMENT", "GRANT", "REVOKE"}
)


@dataclass(frozen=True, slots=True)
class LookedAt:
    """One statement of a run. `explain` and `count` are what to execute for its plan and for how many rows it means.

    `what` says what the statement does in the run; `locks` what others notice of it.
    """

    what: str
    database: str
    sql: str
    explain: Any | None = None
    count: Any | None = None
    locks: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """All of a run: its statements, further facts, and what to do better (SQL to run, first of all)."""

    statements: tuple[LookedAt, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    advice: tuple[str, ...] = ()


def locks_of(dialect: str, sql: str) -> str:
    """Return which locks a statement takes, and whom they hold up."""
    word = (sql.split(None, 1) or [""])[0].upper()
    if dialect == "sqlite":
        if word in {"SELECT", "VALUES", "WITH", "EXPLAIN"}:
            return "none: readers and the one writer do not wait for each other"
        return "the file's write lock for each transaction: every other writer waits meanwhile, readers do not"
    if word in {"SELECT", "VALUES", "TABLE"}:
        return "ACCESS SHARE on what it reads: only ALTER, DROP, TRUNCATE and VACUUM FULL wait for it"
    if word in {"INSERT", "UPDATE", "DELETE", "MERGE", "WITH"}:
        return "ROW EXCLUSIVE on the table, and each row that it changes, until its transaction ends: writers of the \
same rows wait, readers do not"
    if word == "VACUUM":
        return "SHARE UPDATE EXCLUSIVE (with FULL: ACCESS EXCLUSIVE, and everybody waits)"
    if word in _DDL:
        return "ACCESS EXCLUSIVE on what it changes, as most of DDL: everybody waits"
    return "not known, nor whether the server takes it: only executing it would show"


def index_advice(facts: TableFacts, columns: tuple[str, ...], *, unique: bool = False) -> str:
    """Return the statement that makes the index."""
    listed = ", ".join(map(written, columns))
    kind = "UNIQUE INDEX" if unique else "INDEX"
    # PostgreSQL refuses CONCURRENTLY for a partitioned table.
    how = f"{kind} CONCURRENTLY" if facts.dialect == "postgresql" and not facts.is_partitioned else kind
    name = written(re.sub(r"\W+", "_", f"{facts.name}_{'_'.join(columns)}_idx".lower()))
    return f"CREATE {how} {name} ON {facts.written} ({listed});"


def look_at_sql(database: Database, what: str, sql: str, *, count: bool = False) -> LookedAt:
    """Return a statement of which the values are written in it; `count`: of a query, how many rows it has."""
    counting = plain_sql(f"SELECT count(*) FROM (\n{sql}\n) AS batchd_rows") if count else None  # noqa: S608 (the config's own query)
    return LookedAt(
        what,
        database.name,
        sql,
        plain_sql(database.dialect.explain(sql)),
        counting,
        locks_of(database.dialect.name, sql),
    )


def look_at_rows(databases: Mapping[str, Database], name: str, wanted: RowsWanted, *, ordered: bool = True) -> Look:
    """Return the look at a walk over rows, batch by batch."""
    database = databases[name]
    with database.reading() as connection:
        source = find_rows(connection, wanted, ordered=ordered)
        columns = [source.selectable.c[column] for column in source.columns]
        reading = select(*columns).where(source.condition).order_by(*source.keys.order)
        counting = select(func.count()).select_from(source.selectable).where(source.condition)
        sql = written_out(connection, reading)
        counting_sql = written_out(connection, counting)
    looked = LookedAt(
        "reads the rows in the order of the key, one range of keys after the other",
        name,
        sql,
        plain_sql(database.dialect.explain(sql)),
        plain_sql(counting_sql),
        locks_of(database.dialect.name, sql),
    )
    return Look((looked,), (("walks by", ", ".join(source.key_names) or "no order"),), _advice_for(source))


def _advice_for(source: RowSource) -> tuple[str, ...]:
    if source.is_indexed is False and source.facts is not None and source.key_names:
        return (index_advice(source.facts, source.key_names),)
    return ()
