"""Where statements end, and which colons are parameters."""

from __future__ import annotations

import pytest

from batchd.db.statements import NotSql, statements_in

_ATOMIC = "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END"
_TRIGGER = "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET c = CASE WHEN 1 THEN 2 END; DELETE FROM d; END"

_BOTH = {
    "two": ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"]),
    "no end": ("SELECT 1", ["SELECT 1"]),
    "empty ones": (" ;; -- nothing\n ; /* nothing */ ", []),
    "quotes": ("SELECT 'a;''b;' ; SELECT 2", ["SELECT 'a;''b;'", "SELECT 2"]),
    "names": ('SELECT 1 AS "a;""b;"; SELECT 2', ['SELECT 1 AS "a;""b;"', "SELECT 2"]),
    "line comments": ("SELECT 1 -- ; '\n+ 1; SELECT 2", ["SELECT 1 -- ; '\n+ 1", "SELECT 2"]),
    "comments": ("SELECT /* ; ' */ 1; SELECT 2", ["SELECT /* ; ' */ 1", "SELECT 2"]),
    "comments around": ("-- first\nSELECT 1; -- last", ["SELECT 1"]),
    "case": ("SELECT CASE WHEN 1=1 THEN 2 END; SELECT 2", ["SELECT CASE WHEN 1=1 THEN 2 END", "SELECT 2"]),
    "a column end": ("UPDATE t SET begin = 1; SELECT 2", ["UPDATE t SET begin = 1", "SELECT 2"]),
}

_POSTGRESQL = {
    "dollars": ("SELECT $$a;b$$; SELECT 2", ["SELECT $$a;b$$", "SELECT 2"]),
    "tagged": ("DO $x$ BEGIN; $$;$$ END $x$; SELECT 2", ["DO $x$ BEGIN; $$;$$ END $x$", "SELECT 2"]),
    "no dollar quote": ("SELECT a$b$, c$b$; SELECT 2", ["SELECT a$b$, c$b$", "SELECT 2"]),
    "escapes": (r"SELECT E'a\';b'; SELECT 2", [r"SELECT E'a\';b'", "SELECT 2"]),
    "no escapes": (r"SELECT 'a\'; SELECT 2", [r"SELECT 'a\'", "SELECT 2"]),
    "nested": ("SELECT /* a /* b; */ c; */ 1; SELECT 2", ["SELECT /* a /* b; */ c; */ 1", "SELECT 2"]),
    "a rule": (
        "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 2",
        ["CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 2"],
    ),
    "atomic": (
        f"{_ATOMIC}; SELECT 3",
        [_ATOMIC, "SELECT 3"],
    ),
}

_SQLITE = {
    "a trigger": (
        f"{_TRIGGER}; SELECT 2",
        [_TRIGGER, "SELECT 2"],
    ),
    "brackets": ("SELECT [a;b], `c;d` FROM t; SELECT 2", ["SELECT [a;b], `c;d` FROM t", "SELECT 2"]),
    "no nesting": ("SELECT /* a /* b */ 1; SELECT 2", ["SELECT /* a /* b */ 1", "SELECT 2"]),
}


def _cases() -> list[tuple[str, str, list[str]]]:
    both = [(dialect, *case) for dialect in ("postgresql", "sqlite") for case in _BOTH.values()]
    ours = [("postgresql", *case) for case in _POSTGRESQL.values()]
    return both + ours + [("sqlite", *case) for case in _SQLITE.values()]


@pytest.mark.parametrize(("dialect", "script", "expected"), _cases())
def test_statements_end_where_the_databases_own_tools_end_them(dialect: str, script: str, expected: list[str]) -> None:
    """Not inside of quotes, comments, function bodies, triggers or parentheses."""
    assert [statement.text for statement in statements_in(script, dialect)] == expected


def test_a_statement_knows_its_line() -> None:
    """Where its first word stands, comments before it aside."""
    found = statements_in("SELECT 'a\nb';\n\n-- why\nSELECT 2", "postgresql")
    assert [statement.line for statement in found] == [1, 5]


@pytest.mark.parametrize(
    ("script", "names", "bound"),
    [
        ("SELECT :a, ':b', \":c\", x::int -- :d", {"a"}, r"""SELECT :a, '\:b', "\:c", x\:\:int"""),
        ("SELECT a[:low:high], a[1:n], :x", {"x"}, r"SELECT a[\:low\:high], a[1\:n], :x"),
        ("SELECT $$ :a $$ || :a", {"a"}, r"SELECT $$ \:a $$ || :a"),
        ("SELECT '12:30', :a::date", {"a"}, r"SELECT '12\:30', :a\:\:date"),
    ],
)
def test_only_colons_outside_of_quotes_are_parameters(script: str, names: set[str], bound: str) -> None:
    """Casts, slices, times and texts stay as they are."""
    (statement,) = statements_in(script, "postgresql")
    assert statement.names() == names
    assert statement.for_binding(names) == bound


@pytest.mark.parametrize(
    ("script", "line"), [("SELECT 1;\nSELECT 'a", 2), ("\n/* a", 2), ("SELECT $x$ a", 1), ("\\copy t FROM 'x'", 1)]
)
def test_what_does_not_end_is_told_with_its_line(script: str, line: int) -> None:
    """A quote, a comment, a dollar quote; and what only psql understands."""
    with pytest.raises(NotSql) as caught:
        statements_in(script, "postgresql")
    assert caught.value.line == line


def test_a_huge_script_is_read_in_one_pass() -> None:
    """Ten thousand statements take no time to speak of."""
    assert len(statements_in("INSERT INTO t VALUES (1, 'a;b');\n" * 10_000, "postgresql")) == 10_000
