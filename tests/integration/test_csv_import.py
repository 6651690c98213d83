"""csv_import puts a file's records into a table: which fields where, what becomes of duplicates and bad records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from batchd.db.engine import Database
from batchd.errors import JobError, RunInterrupted
from batchd.store.rejects import of_run
from tests.support.cleaning import execute, fetch
from tests.support.importing import HEADER, counts, lines, load, load_text, rows, users_table
from tests.support.job_context import STORE_ID, DirectContext


def test_a_file_becomes_rows(database: Database, tmp_path: Path) -> None:
    """Each field goes into the column of its name, in any case and order; an empty field is NULL."""
    users_table(database)
    text = 'Born;E-Mail;NAME;age\n2001-02-28;a@x;"O\'Neil; ""Jo""";7\n;b@x;;\n'
    result = load_text(
        database, tmp_path, text, columns={"email": "E-Mail", "name": "NAME", "age": "age", "born": "Born"}
    )
    assert rows(database) == [("a@x", 'O\'Neil; "Jo"', 7, "2001-02-28"), ("b@x", None, None, None)]
    assert counts(result) == [2, 0, 0, 0]
    assert load_text(database, tmp_path, "EMAIL,Age\nc@x,1\n")["inserted"] == 1


def test_constants_and_computed_columns_are_filled(database: Database, tmp_path: Path) -> None:
    """Beside the fields go constants, the run's moment, its id, the file and the line."""
    execute(
        database,
        "CREATE TABLE users (email text, source text, active boolean, at timestamp, file text, line integer, "
        "run bigint)",
    )
    context = DirectContext({"app": database})
    path = tmp_path / "users.csv"
    path.write_text("email\na@x\n\nb@x\n")
    load(
        database,
        path,
        context,
        constants={"source": "crm", "active": True},
        computed={"at": "now", "file": "file", "line": "line", "run": "run_id"},
    )
    found = rows(database, "SELECT email, source, active, file, line, run FROM users ORDER BY line")
    assert found == [
        ("a@x", "crm", 1, "users.csv", 2, context.run_id),
        ("b@x", "crm", 1, "users.csv", 4, context.run_id),
    ]
    assert len(fetch(database, "SELECT DISTINCT at FROM users WHERE at IS NOT NULL")) == 1


def test_null_markers_are_null(database: Database, tmp_path: Path) -> None:
    """Only the markers that are named; an empty field of a text column that takes no NULL is an empty text."""
    execute(database, "CREATE TABLE users (email text NOT NULL, name text, age integer)")
    load_text(database, tmp_path, "email,name,age\n,NULL,\\N\n", null_values=["", "NULL", "\\N"])
    load_text(database, tmp_path, "email,name,age\nx,,1\n", null_values=["NULL"])
    assert rows(database, "SELECT email, name, age FROM users ORDER BY email") == [("", None, None), ("x", "", 1)]


@pytest.mark.parametrize("conflict", ["error", "skip", "update"])
def test_duplicates_are_rejected_skipped_or_update(database: Database, tmp_path: Path, conflict: str) -> None:
    """A key that is in the table, and one that is twice in the file; an update takes the file's last record."""
    users_table(database)
    execute(database, "INSERT INTO users VALUES ('a@x', 'old', 1, NULL), ('c@x', 'same', 5, NULL)")
    text = "email,name,age\na@x,new,2\nb@x,first,3\nb@x,last,4\nc@x,same,5\n"
    result = load_text(database, tmp_path, text, on_conflict=conflict)
    found = [row[:3] for row in rows(database)]
    same = ("c@x", "same", 5)
    if conflict == "update":
        assert found == [("a@x", "new", 2), ("b@x", "last", 4), same]
        assert counts(result)[0] == 1
        assert sum(counts(result)) == 4
        assert result["rejected"] == 0
    else:
        assert found == [("a@x", "old", 1), ("b@x", "first", 3), same]
        assert counts(result) == ([1, 0, 0, 3] if conflict == "error" else [1, 0, 3, 0])


def test_an_update_writes_only_what_differs(database: Database, tmp_path: Path) -> None:
    """Columns beside the file's keep what they have, and a row that is as it should be is not written."""
    execute(database, "CREATE TABLE users (id integer PRIMARY KEY, name text, seen text, age integer)")
    execute(database, "INSERT INTO users VALUES (1, 'a', 'before', 1), (2, 'b', 'before', 2), (3, 'c', 'before', 3)")
    text = "id,name,age\n1,a,1\n2,B,2\n3,C,9\n4,d,4\n"
    result = load_text(database, tmp_path, text, on_conflict="update", constants={"seen": "now"}, update=["name"])
    assert rows(database, "SELECT id, name, seen, age FROM users ORDER BY id") == [
        (1, "a", "before", 1),
        (2, "B", "before", 2),
        (3, "C", "before", 3),
        (4, "d", "now", 4),
    ]
    assert counts(result) == [1, 2, 1, 0]


def test_bad_records_are_kept_with_line_and_reason(database: Database, tmp_path: Path) -> None:
    """The others are imported; the bad ones are in the table of rejects and, if asked for, in a file."""
    users_table(database)
    text = (
        HEADER + lines(range(3)) + 'x@x,X,old,\ny@x,Y\n"z@x,Z\nZ",1,2001-02-30\nq@x,"Q"uark,1,\n' + lines(range(3, 6))
    )
    path = tmp_path / "users.csv"
    path.write_text(text)
    context = DirectContext({"app": database})
    result = load(database, path, context, rejects_to=str(tmp_path / "rejects"))
    assert counts(result) == [6, 0, 0, 4]
    kept = of_run(database, STORE_ID, context.run_id)
    assert [row.position for row in kept] == [5, 6, 7, 9]
    assert [row.source for row in kept] == [str(path)] * 4
    assert "age" in kept[0].reason
    assert kept[0].record == {"email": "x@x", "name": "X", "age": "old", "born": ""}
    assert kept[1].reason == "has 2 fields instead of 4"
    assert kept[2].reason.startswith("has 3 fields")
    (file,) = (tmp_path / "rejects").iterdir()
    assert file.read_text().splitlines()[0] == "line,reason,email,name,age,born"
    assert [line.split(",")[0] for line in file.read_text().splitlines()[1:3]] == ["5", "6"]


def test_too_many_bad_records_fail_the_file(database: Database, tmp_path: Path) -> None:
    """The message says where and why; what was committed stays, and what ended it can be looked at."""
    users_table(database)
    text = HEADER + lines(range(100)) + "x@x,X,old,\n" * 5
    path = tmp_path / "users.csv"
    path.write_text(text)
    context = DirectContext({"app": database})
    with pytest.raises(JobError, match=r"users.csv: more than 3 bad records .* line 102: column age") as failed:
        load(database, path, context, max_rejects=3, batch_size=50)
    assert not failed.value.retryable
    assert failed.value.result is not None
    assert failed.value.result["inserted"] == 100
    assert fetch(database, "SELECT count(*) FROM users") == [100]
    assert len(of_run(database, STORE_ID, context.run_id)) >= 4


@pytest.mark.parametrize("key", [True, False])
def test_every_stop_resumes_exactly_there(database: Database, tmp_path: Path, key: bool) -> None:
    """Stopped at every chunk, with or without a key, each record is imported once, and each bad one is told once."""
    users_table(database, key=key)
    path = tmp_path / "users.csv"
    path.write_text(HEADER + lines(range(40)) + 'b@x,"two\nlines",x,\n' + lines(range(40, 97)))
    context = DirectContext({"app": database}, stop_at_check=3)
    attempts = 0
    while True:
        try:
            result = load(database, path, context, batch_size=10, rejects_to=str(tmp_path / "rejects"))
            break
        except RunInterrupted:
            attempts += 1
            context = context.next_attempt(stop_at_check=3)
    assert attempts > 3
    assert counts(result) == [97, 0, 0, 1]
    assert result["records"] == 98
    assert len(fetch(database, "SELECT email FROM users")) == 97
    assert [row.position for row in of_run(database, STORE_ID, context.run_id)] == [42]
    (file,) = (tmp_path / "rejects").iterdir()
    assert len(file.read_text().splitlines()) == 3


def test_progress_counts_bytes(database: Database, tmp_path: Path) -> None:
    """It grows with every chunk up to the file's size."""
    users_table(database)
    path = tmp_path / "users.csv"
    path.write_text(HEADER + lines(range(100)))
    context = DirectContext({"app": database})
    load(database, path, context, batch_size=10)
    done = [reported for reported, _, _ in context.progressed]
    assert done == sorted(done)
    assert {total for _, total, _ in context.progressed} == {path.stat().st_size}
    assert done[-1] == path.stat().st_size


def test_a_dry_run_changes_nothing(database: Database, tmp_path: Path) -> None:
    """It counts what would happen, bad records too, and leaves table, files and batchd's own tables alone."""
    users_table(database)
    (tmp_path / "inbox").mkdir()
    path = tmp_path / "inbox" / "users.csv"
    path.write_text(HEADER + lines(range(30)) + "x@x,X,old,\n")
    result = load(database, path, dry_run=True, after="move", rejects_to=str(tmp_path / "rejects"), batch_size=10)
    assert counts(result) == [30, 0, 0, 1]
    assert result["dry_run"] is True
    assert fetch(database, "SELECT count(*) FROM users") == [0]
    assert path.exists()
    assert {entry.name for entry in tmp_path.iterdir() if not entry.name.startswith("batchd.db")} == {"inbox"}
    with database.reading() as connection:
        assert not {"batchd_checkpoints", "batchd_rejects"} & set(inspect(connection).get_table_names())


_WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("email,nmae\na,b\n", {}, "no column for 'nmae'"),
    ("email,email\na,b\n", {}, "'email' twice"),
    ("name,age\na,1\n", {}, "column email of .*users must have a value"),
    ("email\na\n", {"columns": {"email": "mail"}}, "no field 'mail'"),
    ("email\na\n", {"columns": {"emial": "email"}}, "no column emial"),
    ("email,name\na,b\n", {"on_conflict": "update", "key": ["name"]}, "no unique key over"),
    ("email,name\na,b\n", {"table": "user"}, "no table user"),
]


@pytest.mark.parametrize(("text", "params", "said"), _WRONG, ids=[row[2] for row in _WRONG])
def test_what_cannot_work_is_told(
    database: Database, tmp_path: Path, text: str, params: dict[str, Any], said: str
) -> None:
    """One message that names the file, the table or the column, and nothing is imported."""
    users_table(database)
    with pytest.raises(JobError, match=said):
        load_text(database, tmp_path, text, **params)
    assert fetch(database, "SELECT count(*) FROM users") == [0]


def test_a_file_that_is_not_there_is_told(database: Database, tmp_path: Path) -> None:
    """With its path; it may come yet, so that another attempt may help."""
    users_table(database)
    with pytest.raises(JobError, match=r"nowhere\.csv: No such file") as failed:
        load(database, tmp_path / "nowhere.csv")
    assert failed.value.retryable


def test_an_empty_file_is_no_error(database: Database, tmp_path: Path) -> None:
    """Nothing at all, or only a header: nothing is imported."""
    users_table(database)
    for text in ("", "\n\n", HEADER, HEADER.strip(), "\ufeff"):
        assert load_text(database, tmp_path, text)["records"] == 0
