"""Connections that a caller brings along, each with its own transaction: which sort it is, and what failed on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from batchd.db.engine import Database
from batchd.errors import NoPermission, SchemaMismatch, UsageError

_MISSING_STATES = frozenset({"42883", "42P01", "3F000", "42703"})
"""undefined_function, undefined_table, invalid_schema_name, undefined_column"""

_FORBIDDEN_STATE = "42501"


def is_async(given: object) -> bool:
    """Return whether the caller's connection is an asynchronous one: of psycopg, or of SQLAlchemy (or a session)."""
    return isinstance(given, psycopg.AsyncConnection) or hasattr(given, "run_sync")


def is_psycopg(given: object) -> bool:
    """Return whether it is a connection of psycopg itself, sync or async."""
    return isinstance(given, psycopg.Connection | psycopg.AsyncConnection)


def as_connection(given: Any) -> Connection:
    """Return SQLAlchemy's connection: it may be one, or a Session that has one; raises UsageError for anything else."""
    if isinstance(given, Connection):
        return given
    if hasattr(given, "flush") and callable(getattr(given, "connection", None)):
        connection = given.connection()
        if isinstance(connection, Connection):
            return connection
    raise UsageError(
        f"cannot enqueue through a {type(given).__module__}.{type(given).__qualname__}",
        hint="give a Connection, Session, AsyncConnection or AsyncSession of SQLAlchemy, or a connection of psycopg",
    )


@contextlib.contextmanager
def one_statement(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Yield psycopg's connection from the pool, where each statement is a transaction: no trips for BEGIN and COMMIT.

    Driver errors leave as from `Database.writing`. Only for PostgreSQL.
    """
    with database.translating():
        pooled = database.engine.raw_connection()
        driver = pooled.driver_connection
        assert isinstance(driver, psycopg.Connection)
        try:
            driver.autocommit = True
            yield driver
            driver.autocommit = False
        except BaseException:
            pooled.invalidate()  # whatever state it is in
            raise
        finally:
            pooled.close()


def fetch_one(connection: psycopg.Connection[Any], statement: str, given: Sequence[Any]) -> tuple[Any, ...]:
    """Execute the statement on psycopg's connection and return its row, whatever its row factory is."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement.encode(), given).fetchone() or ()


async def fetch_one_async(
    connection: psycopg.AsyncConnection[Any], statement: str, given: Sequence[Any]
) -> tuple[Any, ...]:
    """Do the same as `fetch_one` on an asynchronous connection."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statement.encode(), given)
        return await cursor.fetchone() or ()


@contextlib.contextmanager
def naming_what_is_missing() -> Iterator[None]:
    """Raise SchemaMismatch or NoPermission where the block's database has not what batchd needs."""
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        if state in _MISSING_STATES or said.startswith(("no such table", "no such column", "table batchd_runs has no")):
            raise SchemaMismatch(
                f"the database of this connection has no batchd store of this version: {said}",
                hint="run `batchd migrate` (or the daemon), and connect to the store's database and schema",
            ) from error
        if state == _FORBIDDEN_STATE:
            hint = "docs/enqueue.md lists what to GRANT"
            raise NoPermission(f"this role may not enqueue: {said}", hint=hint) from error
        raise
