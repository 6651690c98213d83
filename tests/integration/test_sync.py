"""sync brings a table up to its source and writes only what differs, on every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import inspect, text

from batchd.db.engine import Database
from batchd.errors import JobError
from tests.support.api_server import Api, Reply, api_server
from tests.support.cleaning import execute, fetch
from tests.support.job_context import DirectContext
from tests.support.syncing import FIELDS, expected, rows, sync, user, users_table


@pytest.fixture
def api() -> Iterator[Api]:
    """A working API without records."""
    with api_server() as server:
        yield server


def test_the_table_becomes_what_the_source_says(database: Database, api: Api) -> None:
    """New records are added, changed ones changed, by column; a row that is missing stays unless told otherwise."""
    users_table(database)
    api.records = [user(number) for number in range(1, 21)]
    first = sync(database, url=f"{api.url}/all")
    assert (first["fetched"], first["added"], first["changed"]) == (20, 20, 0)
    assert rows(database) == expected(api.records)
    api.records = [user(2, name="new name"), user(3, name="newer", score=None), *api.records[3:], user(21)]
    second = sync(database, url=f"{api.url}/all")
    assert second == second | {
        "mode": "full",
        "fetched": 20,
        "added": 1,
        "changed": 2,
        "columns": {"name": 2, "score": 1},
        "removed": 0,
        "unchanged": 17,
        "rejected": 0,
        "requests": 1,
        "retries": 0,
    }
    assert rows(database) == expected([user(1), *api.records])


def test_nothing_is_left_behind(database: Database, api: Api) -> None:
    """The staging tables are gone after a run, also after one that failed for good."""
    users_table(database)
    api.records = [user(1)]
    sync(database, url=f"{api.url}/all")
    api.records = []
    with pytest.raises(JobError):
        sync(database, url=f"{api.url}/all")
    with database.reading() as connection:
        assert [name for name in inspect(connection).get_table_names() if "staging" in name] == []


def test_a_row_that_does_not_differ_is_not_written(database: Database, api: Api) -> None:
    """Neither a new row version nor a dead one comes of an unchanged record, whatever its values are."""
    users_table(database, ", seen real, flag boolean, note text")
    api.records = [user(number, seen=0.1 + number, flag=number % 2 == 0, note=None) for number in range(1, 201)]
    fields = FIELDS | {"seen": "seen", "flag": "flag", "note": "note"}
    sync(database, url=f"{api.url}/all", fields=fields)
    is_postgresql = database.dialect.name == "postgresql"
    if is_postgresql:
        versions = rows(database, "SELECT id, xmin::text, ctid::text FROM users ORDER BY id")
    else:
        execute(
            database,
            "CREATE TABLE writes (id integer)",
            "CREATE TRIGGER w AFTER UPDATE ON users BEGIN INSERT INTO writes VALUES (new.id); END",
        )
    api.records[6] = api.records[6] | {"name": "changed"}
    result = sync(database, url=f"{api.url}/all", fields=fields)
    assert (result["changed"], result["unchanged"], result["columns"]) == (1, 199, {"name": 1})
    if is_postgresql:
        after = rows(database, "SELECT id, xmin::text, ctid::text FROM users ORDER BY id")
        assert [row[0] for row, before in zip(after, versions, strict=True) if row != before] == [7]
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
            dead = connection.execute(text("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'users'"))
            assert dead.scalar_one() <= 1
    else:
        assert fetch(database, "SELECT id FROM writes") == [7]


_ODD_TYPES = [
    ("numeric(6, 2)", 1.005, 1.016, "postgresql"),
    ("timestamptz(0)", "2026-01-01T10:00:00.6Z", "2026-01-01T10:00:02Z", "postgresql"),
    ("json", {"b": 1, "a": [1, 2.50]}, {"b": 2}, "postgresql"),
    ("jsonb", "just a text", "another", "postgresql"),
    ("text[]", ["a", 'q"uote', None, "back\\slash"], ["b"], "postgresql"),
    ("integer[]", [[1, 2], [3, 4]], [[1, 2]], "postgresql"),
    ("char(5)", "ab", "abc", "postgresql"),
    ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12", "postgresql"),
    ("point", "(1,2)", "(1,3)", "postgresql"),
    ("interval", "1 day", "25 hours", "postgresql"),
    ("double precision", 0.1, 1e300, None),
    ("bigint", 9223372036854775807, 0, None),
    ("boolean", True, False, None),
    ("integer", True, False, None),
    ("text", {"nested": [1, 2]}, ["x"], None),
    ("date", "2026-02-28", "2026-03-01", None),
    ("text", "", "x", None),
    ("text COLLATE NOCASE", "Bob", "bob", "sqlite"),
    ("JSON", {"a": 1.50}, [1], "sqlite"),
    ("", "typeless", 5, "sqlite"),
]


def test_every_type_settles(database: Database, api: Api) -> None:
    """What a column makes of a value (rounded, padded, parsed) equals that value next time; a real change is seen."""
    odd = [each for each in _ODD_TYPES if each[3] in {None, database.dialect.name}]
    names = [f"c{number}" for number in range(len(odd))]
    columns = ", ".join(f"{name} {declared}" for name, (declared, *_) in zip(names, odd, strict=True))
    execute(database, f"CREATE TABLE things (id integer PRIMARY KEY, {columns})")
    params = {"url": f"{api.url}/all", "table": "things", "fields": {name: name for name in ("id", *names)}}
    empty = {"id": 2, **dict.fromkeys(names)}
    seen = []
    for values in ([first for _, first, _, _ in odd], [second for _, _, second, _ in odd]):
        api.records = [{"id": 1, **dict(zip(names, values, strict=True))}, empty]
        results = [sync(database, **params) for _ in range(2)]
        seen += [(result["added"], result["changed"], result["columns"]) for result in results]
    assert seen == [(2, 0, {}), (0, 0, {}), (0, 1, dict.fromkeys(names, 1)), (0, 0, {})]


def test_decimals_keep_all_their_digits(database: Database, api: Api) -> None:
    """A number in JSON does not pass through a float on its way to a column that can hold all of it."""
    exact = "numeric" if database.dialect.name == "postgresql" else "text"
    execute(database, f"CREATE TABLE things (id integer PRIMARY KEY, a {exact})")
    api.script(Reply(body=b'[{"id": 1, "a": 12345678901234567890.123456789}]'))
    sync(database, url=f"{api.url}/all", table="things", fields={"id": "id", "a": "a"})
    assert [str(value) for value in fetch(database, "SELECT a FROM things")] == ["12345678901234567890.123456789"]


def test_a_record_that_does_not_fit_is_kept_with_its_reason(database: Database, api: Api) -> None:
    """A missing key or value, a wrong type, a text that is too long, no object at all: all others are synced."""
    users_table(database)
    api.records = [user(number) for number in range(1, 31)]
    api.records[3]["name"] = None
    del api.records[5]["contact"]
    api.records[7]["id"] = "eight"
    api.records[9]["contact"]["email"] = "x" * 41
    api.records[11] = ["no", "object"]
    api.records[13]["score"] = "many"
    api.records[15]["name"] = "NUL \x00 inside"
    del api.records[17]["id"]
    context = DirectContext({"app": database})
    result = sync(database, context, url=f"{api.url}/all")
    assert (result["fetched"], result["added"], result["rejected"]) == (30, 22, 8)
    with database.reading() as connection:
        kept = connection.execute(
            text("SELECT position, key, reason, source FROM batchd_rejects ORDER BY number")
        ).all()
    assert [row[0] for row in kept] == [4, 6, 8, 10, 12, 14, 16, 18]
    assert [row[1] for row in kept] == ["4", "6", "eight", "10", None, "14", "16", None]
    for row, said in zip(kept, ["NULL", "contact.email", "eight", "40", "object", "many", "NUL", "`id`"], strict=True):
        assert said in row[2]
        assert row[3] == f"{api.url}/all"


def test_too_many_rejects_fail_the_run_before_it_writes(database: Database, api: Api) -> None:
    """One more than `max_rejects`: nothing is written, and the rejects are there to be looked at."""
    users_table(database)
    api.records = [user(number, name=None if number <= 3 else "x") for number in range(1, 11)]
    with pytest.raises(JobError, match="max_rejects") as caught:
        sync(database, url=f"{api.url}/all", max_rejects=2)
    assert not caught.value.retryable
    assert rows(database) == []
    assert fetch(database, "SELECT count(*) FROM batchd_rejects") == [3]
    assert sync(database, url=f"{api.url}/all", max_rejects=3)["added"] == 7


def test_what_the_table_itself_refuses_is_a_reject_too(database: Database, api: Api) -> None:
    """A CHECK, a second unique key, a reference: only the write shows it; the other rows of the chunk are written."""
    execute(database, "CREATE TABLE teams (id integer PRIMARY KEY)", "INSERT INTO teams VALUES (1)")
    users_table(database, ", age integer CHECK (age > 0), team integer REFERENCES teams, UNIQUE (email)")
    api.records = [user(number, age=number, team=1) for number in range(1, 41)]
    api.records[4]["age"] = -1
    api.records[14]["team"] = 2
    api.records[24]["contact"] = {"email": "user1@example.org"}
    fields = FIELDS | {"age": "age", "team": "team"}
    result = sync(database, url=f"{api.url}/all", fields=fields)
    assert (result["added"], result["rejected"]) == (37, 3)
    assert fetch(database, "SELECT key FROM batchd_rejects ORDER BY number") == ["5", "15", "25"]
    assert len(rows(database)) == 37


def test_missing_rows_are_marked_and_unmarked(database: Database, api: Api) -> None:
    """A mark is set once, when a row is first missing, and goes when the record is back, changed or not."""
    moment = "timestamptz" if database.dialect.name == "postgresql" else "text"
    users_table(database, f", missing_since {moment}")
    api.records = [user(number) for number in range(1, 31)]
    params = {"url": f"{api.url}/all", "on_missing": "mark", "missing_since": "missing_since"}
    sync(database, **params)
    gone, api.records = api.records[:2], api.records[2:]
    assert sync(database, **params)["removed"] == 2
    marks = fetch(database, "SELECT missing_since FROM users WHERE missing_since IS NOT NULL ORDER BY id")
    assert len(marks) == 2
    again = sync(database, **params)
    assert (again["removed"], again["changed"]) == (0, 0)
    assert fetch(database, "SELECT missing_since FROM users WHERE id = 1") == marks[:1]
    api.records = gone + api.records
    assert sync(database, **params)["changed"] == 2
    assert fetch(database, "SELECT count(*) FROM users WHERE missing_since IS NOT NULL") == [0]


def test_a_boolean_can_be_the_mark(database: Database, api: Api) -> None:
    """`missing_since` may name a boolean that is never NULL."""
    users_table(database, ", gone boolean NOT NULL DEFAULT false")
    api.records = [user(number) for number in range(1, 31)]
    params = {"url": f"{api.url}/all", "on_missing": "mark", "missing_since": "gone"}
    sync(database, **params)
    kept, api.records = api.records, api.records[1:]
    assert sync(database, **params)["removed"] == 1
    assert fetch(database, "SELECT id FROM users WHERE gone") == [1]
    assert sync(database, **params)["removed"] == 0
    api.records = kept
    assert sync(database, **params)["changed"] == 1
    assert fetch(database, "SELECT count(*) FROM users WHERE gone") == [0]


def test_missing_rows_are_deleted_within_the_limit(database: Database, api: Api) -> None:
    """Up to `max_missing` rows go; a list that is too short changes nothing, and the message says how to insist."""
    users_table(database)
    api.records = [user(number) for number in range(1, 101)]
    params = {"url": f"{api.url}/all", "on_missing": "delete"}
    sync(database, **params)
    api.records = api.records[10:]
    assert sync(database, **params)["removed"] == 10
    api.records = [user(200), *api.records[40:]]
    with pytest.raises(JobError) as caught:
        sync(database, **params)
    assert "40 of 90 rows (44.4 %)" in caught.value.message
    assert "batchd trigger test-job --param max_missing=100%" in caught.value.message
    assert len(rows(database)) == 90
    assert sync(database, **params, max_missing=40)["removed"] == 40
    assert rows(database) == expected(api.records)


@pytest.mark.parametrize("on_missing", ["ignore", "delete"])
def test_an_empty_answer_is_not_believed(database: Database, api: Api, on_missing: str) -> None:
    """No record at all, and rows in the table: the run fails, unless 100% may be missing."""
    users_table(database)
    params = {"url": f"{api.url}/all", "on_missing": on_missing}
    assert sync(database, **params)["fetched"] == 0
    api.records = [user(1), user(2)]
    sync(database, **params)
    api.records = []
    with pytest.raises(JobError, match="no record at all"):
        sync(database, **params)
    assert len(rows(database)) == 2
    assert sync(database, **params, max_missing="100%")["removed"] == (2 if on_missing == "delete" else 0)


def test_a_rejected_record_does_not_make_its_row_missing(database: Database, api: Api) -> None:
    """The row of a record that does not fit stays; where even the key is unknown, no row counts as missing."""
    users_table(database)
    api.records = [user(number) for number in range(1, 41)]
    params = {"url": f"{api.url}/all", "on_missing": "delete"}
    sync(database, **params)
    api.records = [user(1, name=None), user(2, score="x"), user(3, contact=7), *api.records[4:]]
    assert sync(database, **params)["removed"] == 1
    assert [row[0] for row in rows(database)][:4] == [1, 2, 3, 5]
    api.records = [{"name": "who?"}, *api.records[5:]]
    context = DirectContext({"app": database})
    assert sync(database, context, **params)["removed"] == 0
    assert "sync.missing_kept" in context.log.events("warning")


def test_other_sources_rows_are_left_alone(database: Database, api: Api) -> None:
    """Rows outside `where` never count as missing."""
    users_table(database, ", origin text DEFAULT 'crm'")
    execute(database, "INSERT INTO users VALUES (900, 'local', NULL, NULL, 'local')")
    api.records = [user(number) for number in range(1, 31)]
    params = {"url": f"{api.url}/all", "on_missing": "delete", "where": "origin = 'crm'"}
    sync(database, **params)
    api.records = api.records[1:]
    assert sync(database, **params)["removed"] == 1
    assert [row[0] for row in rows(database)] == [*range(2, 31), 900]


def test_of_several_records_with_one_key_the_last_counts(database: Database, api: Api) -> None:
    """They are counted and told, and a key is what the column makes of it."""
    users_table(database)
    api.records = [user(1), user(2), user(1, name="last"), user(2, id="2", name="two")]
    context = DirectContext({"app": database})
    result = sync(database, context, url=f"{api.url}/all")
    assert (result["added"], result["duplicates"]) == (2, 2)
    assert [row[1] for row in rows(database)] == ["last", "two"]
    (line,) = [line for line in context.log.lines if line.event == "sync.duplicates"]
    assert sorted(line.fields["keys"]) == ["1", "2"]
    assert sync(database, url=f"{api.url}/all")["changed"] == 0


def test_keys_of_several_columns(database: Database, api: Api) -> None:
    """A composite key joins, deletes and reports as one; it may be any unique index."""
    execute(
        database,
        "CREATE TABLE prices (shop text NOT NULL, sku text NOT NULL, cents integer)",
        "CREATE UNIQUE INDEX prices_key ON prices (sku, shop)",
    )
    params = {
        "url": f"{api.url}/all",
        "table": "prices",
        "key": ["shop", "sku"],
        "fields": {"shop": "shop", "sku": "sku", "cents": "price.cents"},
        "on_missing": "delete",
        "max_missing": 1,
    }
    api.records = [{"shop": s, "sku": k, "price": {"cents": 5}} for s in "ab" for k in "xyz"]
    assert sync(database, **params)["added"] == 6
    api.records = [*api.records[1:5], {"shop": "b", "sku": "z", "price": {"cents": 6}}]
    result = sync(database, **params)
    assert (result["removed"], result["changed"], result["unchanged"]) == (1, 1, 4)
    assert rows(database, "SELECT shop, sku, cents FROM prices ORDER BY 1, 2")[-1] == ("b", "z", 6)


def test_bookkeeping_touches_only_what_changes(database: Database, api: Api) -> None:
    """`first_seen_at` stays, `synced_at` moves with a change; every row is touched only on request."""
    moment = "timestamptz" if database.dialect.name == "postgresql" else "text"
    users_table(database, f", synced {moment}, first_seen {moment}")
    api.records = [user(1), user(2)]
    params = {"url": f"{api.url}/all", "synced_at": "synced", "first_seen_at": "first_seen"}
    query = "SELECT synced, first_seen FROM users ORDER BY id"
    sync(database, **params)
    before = rows(database, query)
    assert before[0][0] == before[0][1]
    api.records[1]["name"] = "changed"
    sync(database, **params)
    after = rows(database, query)
    assert after[0] == before[0]
    assert after[1][1] == before[1][1]
    assert after[1][0] > before[1][0]
    result = sync(database, **params, touch_unchanged=True)
    assert (result["changed"], result["unchanged"]) == (0, 2)
    assert all(now[0] > old[0] for now, old in zip(rows(database, query), after, strict=True))


def test_a_dry_run_shows_the_differences_and_writes_nothing(database: Database, api: Api) -> None:
    """What would be added, changed and removed, with examples; the next run does it."""
    users_table(database)
    api.records = [user(number) for number in range(1, 31)]
    params = {"url": f"{api.url}/all", "on_missing": "delete"}
    sync(database, **params)
    before = rows(database)
    api.records = [user(2, name="new name"), *api.records[2:], user(31)]
    result = sync(database, **params, dry_run=True)
    assert rows(database) == before
    assert result["would"] == {"add": 1, "change": 1, "remove": 1}
    assert (result["added"], result["changed"], result["removed"], result["columns"]) == (0, 0, 0, {"name": 1})
    examples: Any = result["examples"]
    assert examples["changed"] == [{"id": "2", "name": {"from": "user 2", "to": "new name"}}]
    assert examples["removed"] == [{"id": "1"}]
    assert examples["added"][0]["id"] == "31"
    done = sync(database, **params)
    assert (done["added"], done["changed"], done["removed"]) == (1, 1, 1)


def test_unique_values_may_wander_from_a_removed_row_to_a_new_one(database: Database, api: Api) -> None:
    """Removals come first, so that a record under a new id finds its e-mail address free."""
    users_table(database, ", UNIQUE (email)")
    api.records = [user(number) for number in range(1, 31)]
    params = {"url": f"{api.url}/all", "on_missing": "delete"}
    sync(database, **params)
    api.records[0] = api.records[0] | {"id": 100}
    result = sync(database, **params)
    assert (result["removed"], result["added"], result["rejected"]) == (1, 1, 0)
