"""sync reads files and other databases as well, and asks the real table whether it can be synced; on every dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from batchd.db.engine import Database
from batchd.errors import ExitCode, JobError, RunInterrupted
from batchd.jobs.kinds.sync import KIND
from tests.support.cleaning import execute, fetch
from tests.support.daemon import batchd, write_config
from tests.support.databases import open_database
from tests.support.job_context import DirectContext
from tests.support.syncing import FIELDS, expected, rows, sync, user, users_table

_CSV = """\ufeffid,name,mail,score
1,"one, the first",a@b,1.5
2,two,,
3,three
x,four,a@b,1

5,five,a@b,2
""".replace("\n", "\r\n")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Database]:
    """Another database, with 12,345 people in it."""
    opened = open_database(f"sqlite:///{tmp_path}/other.db", name="other")
    execute(
        opened,
        "CREATE TABLE people (id integer PRIMARY KEY, name text, born date, updated_at text)",
        "INSERT INTO people WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 12345) "
        "SELECT n, 'person ' || n, '1990-01-01', '2026-01-01' FROM s",
    )
    yield opened
    opened.close()


def test_a_csv_file(database: Database, tmp_path: Path) -> None:
    """By its header; an empty field is NULL, ragged and wrong records are rejected."""
    users_table(database)
    (tmp_path / "users.csv").write_text(_CSV, encoding="utf-8", newline="")
    fields = FIELDS | {"email": "mail"}
    result = sync(database, file=f"{tmp_path}/users.csv", fields=fields)
    assert (result["fetched"], result["added"], result["rejected"]) == (5, 3, 2)
    assert rows(database) == [(1, "one, the first", "a@b", 1.5), (2, "two", None, None), (5, "five", "a@b", 2.0)]
    assert "fields instead of 4" in fetch(database, "SELECT reason FROM batchd_rejects ORDER BY number")[0]


def test_an_ndjson_file_goes_on_in_the_middle(database: Database, tmp_path: Path) -> None:
    """An attempt that was stopped between two parts of a file does not begin it again."""
    users_table(database)
    records = [user(number) for number in range(1, 12_001)]
    (tmp_path / "users.ndjson").write_text("".join(json.dumps(record) + "\n" for record in records))
    context = DirectContext({"app": database}, stop_at_check=2)
    with pytest.raises(RunInterrupted):
        sync(database, context, file=f"{tmp_path}/users.ndjson")
    result = sync(database, context.next_attempt(), file=f"{tmp_path}/users.ndjson")
    assert (result["fetched"], result["added"], result["pages"]) == (12_000, 12_000, 3)
    assert rows(database) == expected(records)


def test_a_file_that_was_replaced_is_read_from_its_beginning(database: Database, tmp_path: Path) -> None:
    """What an attempt had of the old one does not count."""
    users_table(database)
    path = tmp_path / "users.ndjson"
    path.write_text("".join(json.dumps(user(number)) + "\n" for number in range(1, 12_001)))
    context = DirectContext({"app": database}, stop_at_check=2)
    with pytest.raises(RunInterrupted):
        sync(database, context, file=str(path))
    path.write_text(json.dumps(user(7, name="new")) + "\n")
    result = sync(database, context.next_attempt(), file=str(path))
    assert (result["fetched"], result["added"]) == (1, 1)


def test_a_file_that_is_as_it_was_need_not_be_read(database: Database, tmp_path: Path) -> None:
    """With `conditional`, and not otherwise."""
    users_table(database)
    path = tmp_path / "users.ndjson"
    path.write_text(json.dumps(user(1)) + "\n")
    params = {"file": str(path), "conditional": True}
    assert [sync(database, **params)["mode"] for _ in range(2)] == ["full", "not_modified"]
    assert sync(database, file=str(path))["mode"] == "full"
    path.write_text(json.dumps(user(1, name="new")) + "\n")
    assert sync(database, **params)["changed"] == 1


def test_a_query_on_another_database(database: Database, other: Database) -> None:
    """Streamed, whatever the dialects; dates and numbers arrive as such."""
    execute(database, "CREATE TABLE people (id integer PRIMARY KEY, name text, born date)")
    params: dict[str, Any] = {
        "table": "people",
        "fields": {"id": "id", "name": "name", "born": "born"},
        "sql": "SELECT id, name, born FROM people",
        "source_database": "other",
        "on_missing": "delete",
    }
    context = DirectContext({"app": database, "other": other})
    result = sync(database, context, **params)
    assert (result["added"], result["pages"]) == (12_345, 3)
    execute(other, "DELETE FROM people WHERE id = 1", "UPDATE people SET name = 'new' WHERE id = 2")
    again = sync(database, DirectContext({"app": database, "other": other}), **params)
    assert (again["changed"], again["removed"], again["unchanged"]) == (1, 1, 12_343)


def test_a_query_that_is_stopped_is_asked_anew(database: Database, other: Database) -> None:
    """A result has no place to go on from; what was fetched before is dropped, so that nothing is counted twice."""
    execute(database, "CREATE TABLE people (id integer PRIMARY KEY, name text)")
    params: dict[str, Any] = {"table": "people", "fields": {"id": "id", "name": "name"}}
    params |= {"sql": "SELECT id, name FROM people", "source_database": "other"}
    context = DirectContext({"app": database, "other": other}, stop_at_check=2)
    with pytest.raises(RunInterrupted):
        sync(database, context, **params)
    result = sync(database, context.next_attempt(), **params)
    assert (result["fetched"], result["added"], result["duplicates"]) == (12_345, 12_345, 0)


def test_a_query_may_ask_for_what_has_changed(database: Database, other: Database) -> None:
    """The watermark is a bind parameter, NULL in a full run; a query cannot change anything."""
    execute(database, "CREATE TABLE people (id integer PRIMARY KEY, name text)")
    params: dict[str, Any] = {
        "table": "people",
        "fields": {"id": "id", "name": "name"},
        "sql": "SELECT id, name, updated_at FROM people WHERE :since IS NULL OR updated_at > :since",
        "source_database": "other",
        "updated_since": {"param": "since", "field": "updated_at", "overlap": "0s", "format": "date"},
    }
    databases = {"app": database, "other": other}
    assert sync(database, DirectContext(databases), **params)["fetched"] == 12_345
    execute(other, "UPDATE people SET updated_at = '2026-02-01', name = 'new' WHERE id = 9")
    result = sync(database, DirectContext(databases), **params)
    assert (result["mode"], result["fetched"], result["changed"]) == ("incremental", 1, 1)
    with pytest.raises(JobError, match="bind parameter :other"):
        sync(database, DirectContext(databases), **(params | {"sql": "SELECT :other"}))


def problems(database: Database, **params: Any) -> list[tuple[str, str]]:
    """What `check --connect` says about the job."""
    filled = {"database": "app", "table": "users", "key": ["id"], "fields": FIELDS, "url": "http://x.test/"} | params
    check = KIND.check_connected
    assert check is not None
    return list(check(KIND.params.model_validate(filled), {"app": database}))


def test_the_real_table_is_asked(database: Database) -> None:
    """Table, columns, key, marks and condition, each with what is wrong and what to do; a right job has nothing."""
    users_table(
        database,
        ", made text NOT NULL DEFAULT 'x', flag boolean, double_id integer GENERATED ALWAYS AS (id * 2) STORED",
    )
    assert problems(database) == []
    wrong = [
        ({"table": "user"}, "table", "did you mean"),
        ({"fields": FIELDS | {"nmae": "x"}}, "fields", "no column nmae"),
        ({"key": ["name"]}, "key", "CREATE UNIQUE INDEX"),
        ({"key": ["id", "flag"]}, "key", "not among `fields`"),
        ({"fields": {"id": "id"}}, "fields", "name may not be NULL"),
        ({"fields": FIELDS | {"double_id": "x"}}, "fields", "generated"),
        ({"optional": ["name"]}, "optional", "may not be NULL"),
        ({"synced_at": "flag"}, "synced_at", "holds no moment"),
        ({"synced_at": "name"}, "synced_at", "filled by `fields`"),
        ({"on_missing": "mark", "missing_since": "made"}, "missing_since", "may not be NULL"),
        ({"where": "nothing = 1"}, "where", "nothing"),
    ]
    for params, key, said in wrong:
        found = problems(database, **params)
        assert found, params
        assert found[0][0] == key
        assert said in found[0][1]
    assert problems(database, on_missing="mark", missing_since="flag") == []


def test_missing_rights_are_told(postgres_url: str) -> None:
    """SELECT, INSERT, UPDATE on the columns, DELETE where rows are deleted, and CREATE for the staging tables."""
    database = open_database(postgres_url)
    users_table(database)
    role = "reader_of_" + postgres_url.rpartition("/")[2].partition("?")[0]
    execute(database, f"CREATE ROLE {role}", f"GRANT SELECT ON users TO {role}")
    try:
        with database.engine.begin() as connection:
            connection.execute(text(f"ALTER DATABASE \"{connection.engine.url.database}\" SET role = '{role}'"))
        lesser = open_database(postgres_url)
        said = " | ".join(message for _, message in problems(lesser, on_missing="delete"))
        lesser.close()
    finally:
        execute(database, f"REVOKE ALL ON users FROM {role}", f"DROP ROLE {role}")
        database.close()
    for right in ("INSERT", "UPDATE", "DELETE on", "CREATE on schema"):
        assert right in said
    assert "SELECT" not in said


def test_a_config_is_checked(tmp_path: Path) -> None:
    """What does not go together is told, for all jobs at once, each with its section."""
    base = {"kind": "sync", "database": "app", "table": "users", "key": ["id"], "fields": FIELDS}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "exactly one of `url`, `file` and `sql`"),
        ({"url": "ftp://x.test"}, "http:// or https://"),
        ({"url": "http://x.test", "concurrency": 3}, "`concurrency` needs"),
        ({"url": "http://x.test", "paging": {"by": "pages"}}, "expected tags"),
        ({"url": "http://x.test", "on_missing": "mark"}, "missing_since"),
        ({"url": "http://x.test", "on_missing": "delete", "updated_since": {}}, "full_every"),
        ({"url": "http://x.test", "max_missing": "lots"}, "not a share"),
        ({"url": "http://x.test", "fields": {"id": "a..b"}}, "not a path"),
        ({"file": "users.csv", "token": "x"}, "for a `url`"),
        ({"sql": "SELECT 1"}, "`source_database` belong together"),
        ({"sql": "SELECT 1", "source_database": "nope"}, "no [databases.nope]"),
        ({"url": "http://x.test", "username": "me"}, "needs a `password`"),
    ]
    jobs = {f"job-{number}": base | job for number, (job, _) in enumerate(wrong)}
    sections = {"databases": {"app": {"url": f"sqlite:///{tmp_path}/app.db"}}, "jobs": jobs}
    done = batchd(write_config(tmp_path, sections), "check", "--json")
    assert done.returncode == ExitCode.CONFIG_INVALID
    told = json.loads(done.stdout)["problems"]
    for number, (job, said) in enumerate(wrong):
        about = [problem["message"] for problem in told if problem["section"] == f"jobs.job-{number}"]
        assert any(said in message for message in about), (job, about)
