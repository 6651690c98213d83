"""Read-only transactions and time limits of single statements, on every dialect."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from batchd.db.engine import Database
from batchd.errors import DatabaseUnavailable, StatementCancelled

_SLOW = {
    "postgresql": "SELECT pg_sleep(20)",
    "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n",
}


@pytest.fixture
def filled(database: Database) -> Database:
    """A database with one table."""
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE t (id integer PRIMARY KEY)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
    return database


def count(database: Database) -> int:
    """Return how many rows the table has."""
    with database.reading() as connection:
        return int(connection.execute(text("SELECT count(*) FROM t")).scalar_one())


@pytest.mark.parametrize("statement", ["INSERT INTO t VALUES (2)", "DELETE FROM t", "DROP TABLE t"])
def test_a_write_is_refused(filled: Database, statement: str) -> None:
    """And the connection can write again afterwards."""
    with (
        pytest.raises((DBAPIError, DatabaseUnavailable), match=r"read-?only"),
        filled.reading() as connection,
        filled.dialect.read_only(connection),
    ):
        connection.execute(text(statement))
    assert count(filled) == 1
    for number in range(2, 12):
        with filled.writing() as connection:
            connection.execute(text(f"INSERT INTO t VALUES ({number})"))
    assert count(filled) == 11


def test_all_statements_see_one_snapshot(filled: Database) -> None:
    """What somebody else commits meanwhile does not show."""
    with filled.reading() as connection, filled.dialect.read_only(connection):
        assert connection.execute(text("SELECT count(*) FROM t")).scalar_one() == 1
        with filled.writing() as other:
            other.execute(text("INSERT INTO t VALUES (2)"))
        assert connection.execute(text("SELECT count(*) FROM t")).scalar_one() == 1
    assert count(filled) == 2


def test_a_statement_that_takes_too_long_is_ended(filled: Database) -> None:
    """The limit holds for each statement alone, and for nothing after the block."""
    started = time.monotonic()
    with (
        pytest.raises(StatementCancelled),
        filled.reading() as connection,
        filled.dialect.read_only(connection),
        filled.dialect.time_limit(connection, timedelta(seconds=0.3)),
    ):
        connection.execute(text(_SLOW[filled.dialect.name])).all()
    assert time.monotonic() - started < 10
    assert count(filled) == 1
