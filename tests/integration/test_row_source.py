"""A row source reads every row once, in the database's own order, and never more of the table than asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import event

from batchd.db.engine import Database
from batchd.db.keys import Key
from batchd.db.row_source import RowSource, RowsWanted, find_rows
from batchd.errors import JobError
from tests.support.cleaning import execute, fetch


def source_of(database: Database, **wanted: Any) -> RowSource:
    """The source of the rows."""
    with database.reading() as connection:
        return find_rows(connection, RowsWanted(**wanted))


def walked(database: Database, source: RowSource, size: int) -> list[list[dict[str, Any]]]:
    """Every batch of a walk in steps of `size`."""
    batches = []
    with database.reading() as connection:
        last = source.last_key(connection)
        after: Key | None = None
        while last is not None and after != last:
            boundary = source.next_boundary(connection, after, last, size) or last
            batches.append([dict(row.values) for row in source.rows(connection, after, boundary)])
            after = boundary
    return batches


_KEYS: dict[str, tuple[str, str, list[str]]] = {
    "integer": ("both", "bigint", ["-9223372036854775808", "-1", "0", "7", "9223372036854775807"]),
    "text": ("both", "text", ["''", "'B'", "'a'", "'b'", "'Ä'", "'z\"''%s:x\\'", "'日本'"]),
    "nocase": ("sqlite", "text COLLATE NOCASE", ["'a'", "'B'", "'c'", "'D'", "'_'"]),
    "c": ("postgresql", 'text COLLATE "C"', ["'a'", "'B'", "'ä'", "'Z'", "'_'"]),
    "uuid": ("postgresql", "uuid", [f"'{n:08x}-0000-4000-8000-000000000000'" for n in (0, 9, 255, 2**31, 2**32 - 1)]),
    "timestamptz": (
        "postgresql",
        "timestamptz",
        ["'-infinity'", "'2026-03-29 01:59:59.999999+01'", "'2026-03-29 03:00+02'", "'infinity'", "'0044-03-15 BC'"],
    ),
    "numeric": ("postgresql", "numeric", ["-1e30", "0.1", "0.10000000000000000000000001", "1e30", "'NaN'"]),
    "double": ("postgresql", "double precision", ["'-Infinity'", "0.1", "0.30000000000000004", "1e308", "'NaN'"]),
    "bytea": ("postgresql", "bytea", ["'\\x'", "'\\x00'", "'\\xff'", "'\\x00ff'"]),
    "blob": ("sqlite", "blob", ["x''", "x'00'", "x'ff'", "x'00ff'"]),
    "mixed": ("sqlite", "", ["-5", "2.5", "3", "'3'", "'x'", "x'00'"]),
    "enum": ("postgresql", "mood", ["'sad'", "'ok'", "'happy'"]),
    "inet": ("postgresql", "inet", ["'10.0.0.1'", "'10.0.0.0/8'", "'::1'"]),
    "varchar": ("both", "varchar(10)", ["'a'", "'a b'", "'Z'"]),
    "char": ("postgresql", "char(4)", ["'a'", "'b'", "'abcd'"]),
}


def test_every_type_of_key_is_walked_whole_and_in_order(database: Database) -> None:
    """Each row comes once, in the order in which the database sorts the column."""
    if database.dialect.name == "postgresql":
        execute(database, "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
    for kind, (dialect, sql_type, values) in _KEYS.items():
        if dialect not in {"both", database.dialect.name}:
            continue
        table = f"things_{kind}"
        rows = (f"INSERT INTO {table} VALUES ({value}, {number})" for number, value in enumerate(values))
        execute(database, f"CREATE TABLE {table} (k {sql_type} NOT NULL PRIMARY KEY, n integer)", *rows)
        source = source_of(database, table=table, columns=("n",))
        assert source.key_names == ("k",)
        expected = fetch(database, f"SELECT n FROM {table} ORDER BY k")
        for size in (1, 2, 100):
            batches = walked(database, source, size)
            assert [row["n"] for batch in batches for row in batch] == expected, kind
            assert all(1 <= len(batch) <= size for batch in batches), kind


def test_composite_keys_split_within_a_tie(database: Database) -> None:
    """A tie in the first column is cut by the second; a batch never holds more than asked."""
    execute(database, "CREATE TABLE things (a integer NOT NULL, b text NOT NULL, n integer, PRIMARY KEY (a, b))")
    for number in range(30):
        execute(database, f"INSERT INTO things VALUES ({number // 10}, 'b{number % 10}', {number})")
    batches = walked(database, source_of(database, table="things"), 4)
    assert [row["n"] for batch in batches for row in batch] == list(range(30))
    assert [len(batch) for batch in batches] == [4] * 7 + [2]


def test_rows_with_equal_keys_come_together(database: Database) -> None:
    """By a column that is not unique a batch grows, and loses nothing."""
    execute(database, "CREATE TABLE things (n integer PRIMARY KEY, day integer NOT NULL)")
    for number in range(12):
        execute(database, f"INSERT INTO things VALUES ({number}, {number // 5})")
    batches = walked(database, source_of(database, table="things", key=("day",)), 2)
    assert [len(batch) for batch in batches] == [5, 5, 2]


def test_a_query_is_walked_by_a_column_of_its_result(database: Database) -> None:
    """Also with a join, a percent sign, colons, a comment at its end and an odd name."""
    execute(
        database,
        "CREATE TABLE users (id integer PRIMARY KEY, name text)",
        "CREATE TABLE orders (id integer PRIMARY KEY, user_id integer, total integer)",
        "INSERT INTO users VALUES (1, 'a:b'), (2, '50%'), (3, 'none')",
        "INSERT INTO orders VALUES (1, 1, 5), (2, 1, 7), (3, 2, 9)",
    )
    query = """SELECT u.id AS "User Id", sum(o.total) AS total, max(u.name) AS name FROM users u
               JOIN orders o ON o.user_id = u.id WHERE u.name LIKE '%' AND u.name <> ':x' GROUP BY u.id -- all"""
    source = source_of(database, query=query, key=("User Id",))
    assert walked(database, source, 1) == [
        [{"User Id": 1, "total": 12, "name": "a:b"}],
        [{"User Id": 2, "total": 9, "name": "50%"}],
    ]


def test_what_cannot_be_walked_is_told(database: Database) -> None:
    """A missing table, column or key, a broken query: each is named, none is retryable."""
    execute(database, "CREATE TABLE users (id integer PRIMARY KEY, name text)")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"table": "usres"}, "no table usres"),
        ({"table": "users", "columns": ("nmae",)}, "no column nmae"),
        ({"table": "users", "key": ("idd",)}, "no column idd"),
        ({"table": "users", "where": "nmae = 1"}, "not a condition"),
        ({"query": "SELEC 1", "key": ("id",)}, "not a query"),
        ({"query": "SELECT id FROM users; DELETE FROM users", "key": ("id",)}, "not a query"),
        ({"query": "SELECT id FROM users", "key": ("uid",)}, "no column uid"),
        ({"query": "DELETE FROM users RETURNING id", "key": ("id",)}, "not a query"),
    ]
    for wanted, said in cases:
        with pytest.raises(JobError, match=said) as raised:
            source_of(database, **wanted)
        assert not raised.value.retryable
    if database.dialect.name == "postgresql":  # SQLite calls the second one id:1, and has a rowid for every table
        with pytest.raises(JobError, match="two columns named id"):
            source_of(database, query="SELECT id, name AS id FROM users", key=("id",))
        execute(database, "CREATE TABLE loose (n integer)")
        with pytest.raises(JobError, match="no primary key"):
            source_of(database, table="loose")


def test_conditions_stand_as_they_are_written(database: Database) -> None:
    """Percent signs, colons and comments in `where` mean what SQL means by them."""
    execute(
        database,
        "CREATE TABLE users (id integer PRIMARY KEY, name text)",
        "INSERT INTO users VALUES (1, 'a:b'), (2, '50%'), (3, 'none')",
    )
    source = source_of(database, table="users", where="name LIKE '%0%' OR name = 'a:b' -- and no more")
    assert [row["id"] for batch in walked(database, source, 1) for row in batch] == [1, 2]


def test_a_value_that_python_cannot_hold_is_told(database: Database) -> None:
    """The error says of which rows and what to do; without that column the walk goes through."""
    if database.dialect.name == "sqlite":
        pytest.skip("Python holds all that SQLite does")
    execute(
        database,
        "CREATE TABLE terms (id integer PRIMARY KEY, ends timestamptz)",
        "INSERT INTO terms VALUES (1, now()), (2, 'infinity')",
    )
    with pytest.raises(JobError, match="table terms has a value that Python cannot hold") as raised:
        walked(database, source_of(database, table="terms"), 10)
    assert "`columns`" in str(raised.value.hint)
    assert len(walked(database, source_of(database, table="terms", columns=("id",)), 10)) == 1


def test_null_keys_are_found(database: Database) -> None:
    """Rows that no order reaches are known; a condition that leaves them out makes it well."""
    execute(database, "CREATE TABLE things (id integer PRIMARY KEY, code text)", "INSERT INTO things VALUES (1, NULL)")
    with database.reading() as connection:
        assert source_of(database, table="things", key=("code",)).has_null_keys(connection)
        assert not source_of(database, table="things", key=("code",), where="code IS NOT NULL").has_null_keys(
            connection
        )
        assert source_of(database, query="SELECT code FROM things", key=("code",)).has_null_keys(connection)
        assert not source_of(database, table="things").has_null_keys(connection)


def test_a_walk_takes_the_index_and_never_an_offset(database: Database) -> None:
    """Each statement of a walk over a composite key goes through the key's index, bounded on both sides."""
    execute(database, "CREATE TABLE things (a integer NOT NULL, b integer NOT NULL, note text, PRIMARY KEY (a, b))")
    numbers = (
        "SELECT n FROM generate_series(1, 20000) AS n"
        if database.dialect.name == "postgresql"
        else "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000) SELECT n FROM s"
    )
    execute(database, f"INSERT INTO things SELECT n % 7, n, 'x' FROM ({numbers}) AS numbers", "ANALYZE things")
    source = source_of(database, table="things")
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        seen.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        assert sum(len(batch) for batch in walked(database, source, 500)) == 20_000
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    assert len(seen) > 64
    for statement, parameters in seen[60:64]:
        before_offset, offset, _ = statement.partition("OFFSET ?")
        assert "OFFSET" not in before_offset
        assert not offset or parameters[before_offset.count("?")] == 0  # SQLAlchemy's spelling of LIMIT on SQLite
        with database.reading() as connection:
            if database.dialect.name == "sqlite":
                plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
                reads = [step for step in plan if "things" in step]
                assert reads, plan
                assert all(step.startswith("SEARCH things USING") and "(a" in step for step in reads), plan
            else:
                told = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
                scans = _scans((told if isinstance(told, list) else json.loads(told))[0]["Plan"])
                assert scans
                for scan in scans:
                    assert scan["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}, scan
                    assert "ROW(a, b)" in scan["Index Cond"], scan


def _scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes that read a table."""
    inner = [scan for part in plan.get("Plans", []) for scan in _scans(part)]
    is_scan = "Scan" in plan["Node Type"] and plan["Node Type"] not in {"Subquery Scan", "Bitmap Heap Scan"}
    return [*([plan] if is_scan else []), *inner]


def test_rows_are_matched_by_values_that_are_never_sql(database: Database) -> None:
    """A value, one of several, a range, NULL, by the column's own type; a text of SQL is only a text."""
    execute(database, "CREATE TABLE sales (id integer PRIMARY KEY, country text, at timestamp, paid boolean)")
    execute(
        database,
        "INSERT INTO sales VALUES (1, 'DE', '2026-01-01 00:00:00', true), (2, 'FR', '2026-01-31 23:59:59', false),"
        " (3, NULL, '2026-02-01 00:00:00', true), (4, ''' OR true --', '2026-03-01 00:00:00', NULL)",
    )

    def matched(**match: Any) -> list[int]:
        source = source_of(database, table="sales", match=match)
        rows = [row for batch in walked(database, source, 10) for row in batch]
        assert [row["id"] for row in rows] == [
            row["id"]
            for batch in walked(
                database, source_of(database, query="SELECT * FROM sales", key=("id",), match=match), 10
            )
            for row in batch
        ]
        return [row["id"] for row in rows]

    assert matched(country="DE") == [1]
    assert matched(country=["DE", "FR"], id=2) == [2]
    assert matched(country=None) == [3]
    assert matched(at={"from": "2026-01-01 00:00:00", "before": "2026-02-01 00:00:00"}) == [1, 2]
    assert matched(id={"from": 3}) == [3, 4]
    assert matched(paid=True) == [1, 3]
    assert matched(country="' OR true --") == [4]
    assert matched(country="x' OR '1'='1") == []


def test_a_match_that_cannot_be_is_refused_at_once(database: Database) -> None:
    """A column that is not there, and (where columns have types) a value that the column cannot have."""
    execute(database, "CREATE TABLE sales (id integer PRIMARY KEY, country text)")
    with pytest.raises(JobError, match="nope"):
        source_of(database, table="sales", match={"nope": 1})
    if database.dialect.name == "postgresql":
        with pytest.raises(JobError, match="cannot have") as caught:
            source_of(database, table="sales", match={"id": "many"})
        assert not caught.value.retryable
