"""Staged texts move into a table's columns; what does not fit stays behind with a plain reason, on every dialect."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import ColumnElement, func, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from batchd.db.catalogue import find_table
from batchd.db.engine import Database
from batchd.db.fitting import Fitted, Fitting, Value
from batchd.db.staging import (
    TEMPORARY,
    Texts,
    block_of,
    temporary_staging,
)
from tests.support.cleaning import execute, fetch
from tests.support.databases import open_database

_ODD = [
    "plain",
    "tab\there",
    "back\\slash",
    "two\nlines",
    "carriage\rreturn",
    "\\N",
    "\\.",
    "",
    "ünïcödé 日本",
    '"',
    None,
]


def _moved(
    database: Database, table: str, columns: Sequence[str], rows: Sequence[Texts], *, most_misfits: int = 1_000
) -> Fitted[int]:
    """Stage the rows, positions from 1, and insert those that fit into the table's columns."""
    with database.writing() as connection:
        facts = find_table(connection, table)
        core = facts.as_table()
        with temporary_staging(connection, columns) as staging:
            staging.add(connection, block_of(database.dialect.name, range(1, len(rows) + 1), rows))
            values = [Value(facts.column_named(name), staging.text(name)) for name in columns]

            def move(condition: ColumnElement[bool]) -> int:
                chosen = select(*(value.cast(database.dialect.name) for value in values)).where(condition)
                statement = insert(core).from_select(list(columns), chosen.order_by(staging.position))
                return connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount

            return Fitting(connection, database.dialect, staging, values, move).run(most_misfits=most_misfits)


def test_texts_arrive_as_they_were(database: Database) -> None:
    """Whatever COPY has a special meaning for is stored as it stands; None is NULL."""
    execute(database, "CREATE TABLE notes (a text, b text)")
    rows = [(text, "x") for text in _ODD]
    assert sum(_moved(database, "notes", ["a", "b"], rows).done) == len(rows)
    assert sorted(map(str, fetch(database, "SELECT a FROM notes"))) == sorted(map(str, _ODD))


def test_what_no_text_column_holds_is_refused_before(database: Database) -> None:
    """A NUL and half of a surrogate pair are misfits with their position; the other rows of the block go in."""
    block = block_of(database.dialect.name, [7, 8, 9], [("a\x00b", "x"), ("good", None), ("x", "\ud800")])
    assert [(misfit.position, misfit.reason[:19]) for misfit in block.misfits] == [
        (7, "a field holds a NUL"),
        (9, "a field holds half "),
    ]
    with database.writing() as connection, temporary_staging(connection, ["a", "b"]) as staging:
        staging.add(connection, block)
        assert connection.execute(select(staging.position)).scalars().all() == [8]


def test_a_temporary_staging_ends_with_its_transaction(database: Database) -> None:
    """The next transaction on the same connection makes its own, and no table is left behind."""
    for columns in (["a"], ["b", "c"]):
        with database.writing() as connection, temporary_staging(connection, columns) as staging:
            assert connection.execute(select(func.count()).select_from(staging.table)).scalar_one() == 0
    with database.reading() as connection:
        assert TEMPORARY not in inspect(connection).get_table_names()


def test_misfits_are_found_among_good_rows(database: Database) -> None:
    """A bad number, a text that is too long, a missing value, a CHECK: each is told apart, all else is stored."""
    execute(
        database,
        "CREATE TABLE users (id integer PRIMARY KEY, name varchar(10) NOT NULL, born date, "
        "age integer CHECK (age > 0))",
    )
    rows: list[Texts] = [(f"{number}", f"user {number}", "2001-02-28", "30") for number in range(1, 201)]
    rows[16] = ("17", "user 17", "2001-02-31", "30")
    rows[49] = ("x50", "user 50", None, None)
    rows[98] = ("99", "a name that is too long", "2001-02-28", "30")
    rows[99] = ("100", None, "2001-02-28", "30")
    rows[150] = ("151", "user 151", "2001-02-28", "-1")
    fitted = _moved(database, "users", ["id", "name", "born", "age"], rows)
    assert fitted.is_complete
    assert sum(fitted.done) == 195
    assert fetch(database, "SELECT count(*) FROM users") == [195]
    found = {misfit.position: misfit for misfit in fitted.misfits}
    assert list(found) == [17, 50, 99, 100, 151]
    assert [found[position].column for position in (17, 50, 99, 100)] == ["born", "id", "name", "name"]
    assert "x50" in found[50].reason
    assert "10" in found[99].reason
    assert "null" in found[100].reason.lower()
    assert "constraint" in found[151].reason.lower()


def test_a_broken_reference_or_key_is_a_misfit(database: Database) -> None:
    """A row without its parent and a row whose key is taken stay behind."""
    execute(
        database,
        "CREATE TABLE parents (id integer PRIMARY KEY)",
        "CREATE TABLE children (id integer PRIMARY KEY, parent integer REFERENCES parents)",
        "INSERT INTO parents VALUES (1)",
        "INSERT INTO children VALUES (5, 1)",
    )
    fitted = _moved(database, "children", ["id", "parent"], [("3", "1"), ("4", "2"), ("5", "1"), ("6", "1")])
    assert [misfit.position for misfit in fitted.misfits] == [2, 3]
    assert fetch(database, "SELECT id FROM children ORDER BY 1") == [3, 5, 6]


def test_too_many_misfits_end_the_search(database: Database) -> None:
    """One more than allowed is enough to know; the rest is not looked at."""
    execute(database, "CREATE TABLE t (a integer)")
    fitted = _moved(database, "t", ["a"], [("x",)] * 1_000, most_misfits=3)
    assert not fitted.is_complete
    assert len(fitted.misfits) == 4


def test_a_fault_of_the_whole_statement_is_no_misfit(database: Database) -> None:
    """A table that is gone is an error, not ten thousand bad rows."""
    with database.writing() as connection, pytest.raises(DBAPIError), temporary_staging(connection, ["a"]) as staging:
        staging.add(connection, block_of(database.dialect.name, [1], [("x",)]))

        def move(condition: ColumnElement[bool]) -> None:
            connection.exec_driver_sql("INSERT INTO nowhere SELECT 1")

        Fitting(connection, database.dialect, staging, [], move).run(most_misfits=10)


_SQLITE_TYPES = [
    ("INTEGER", ["1", " -5 ", "+7", "9223372036854775807"], ["1.0", "abc", "", "1 2", "9223372036854775808", "0x10"]),
    ("REAL", ["1", "1.5", "-2e10", ".5"], ["one", "1,5", "12abc", "nan"]),
    ("DECIMAL(10,2)", ["1", "1.50"], ["one"]),
    ("BOOLEAN", ["true", "F", "0", "1", "Yes", "off"], ["2", "maybe", ""]),
    ("DATE", ["2026-02-28", "2026-02-28T10:00:00Z", "1700000000000"], ["2026-02-31", "28.02.2026", "now", "soon"]),
    ("TIMESTAMP", ["2026-02-28 23:59:59.123456+02:00"], ["2026-02-28 25:00", "2026-02-28 x"]),
    ("JSON", ['{"a": [1]}', "null"], ["{a: 1}", ""]),
    ("VARCHAR(3)", ["", "abc", "日本語"], ["abcd"]),
    ("TEXT", ["", "anything", "2026-02-31"], []),
]


@pytest.mark.parametrize(("declared", "good", "bad"), _SQLITE_TYPES, ids=[row[0] for row in _SQLITE_TYPES])
def test_sqlites_types_mean_what_they_say(sqlite_url: str, declared: str, good: list[str], bad: list[str]) -> None:
    """On SQLite, which stores anything anywhere, a text that is no value of the declared type is a misfit."""
    database = open_database(sqlite_url)
    execute(database, f"CREATE TABLE t (a {declared})")
    fitted = _moved(database, "t", ["a"], [(text,) for text in (*good, *bad)])
    stored = fetch(database, "SELECT typeof(a) FROM t")
    database.close()
    assert [misfit.position for misfit in fitted.misfits] == list(range(len(good) + 1, len(good) + len(bad) + 1))
    assert len(stored) == len(good)
    if declared in {"INTEGER", "BOOLEAN"}:
        assert set(stored) == {"integer"}
