"""`batchd_enqueue` in SQL: a function on PostgreSQL, an INSERT on SQLite, for callers that have no Python."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.store.known_names import KindParams, register
from batchd.store.migrate import migrate, migration_sql
from tests.support.cleaning import execute, fetch
from tests.support.databases import open_database
from tests.support.postgres import PostgresServer, fresh_database
from tests.support.store_rows import add_schedule, run_row

MAIL = KindParams(frozenset({"to", "cc", "password"}), frozenset({"to"}), frozenset({"password"}))


def prepared(url: str) -> Database:
    """A store that knows a job, a kind and two queues."""
    store = open_database(url)
    migrate(store)
    add_schedule(
        store,
        "welcome",
        kind="mail",
        params={"to": "a", "cc": {"x": 1}, "n": 1.5},
        queue="critical",
        limit_key="mail:{to}{cc.x}!",
        mutex="m",
    )
    register(store, {"mail": MAIL}, ["critical"])
    return store


@pytest.fixture
def store(postgres_url: str) -> Iterator[Database]:
    """Such a store on PostgreSQL."""
    with closing(prepared(postgres_url)) as made:
        yield made


@pytest.fixture
def psql(postgres_url: str, store: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection of somebody else."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def ask(connection: psycopg.Connection[Any], call: str) -> Any:
    """The value of one SELECT."""
    row = connection.execute(call.encode()).fetchone()
    assert row
    return row[0]


def test_the_function_returns_the_runs_id(store: Database, psql: psycopg.Connection[Any]) -> None:
    """The shortest call, and one with every option by its name."""
    run = run_row(store, ask(psql, """SELECT batchd_enqueue('welcome', '{"to": "x"}')"""))
    assert (run["schedule_id"], run["queue"], run["state"], run["created_by"]) == (
        "welcome",
        "critical",
        "queued",
        "sql",
    )
    assert run["params"] == {"to": "x", "cc": {"x": 1}, "n": 1.5}
    assert (run["limit_key"], run["mutex"]) == ("mail:x1!", "m")
    full = """SELECT batchd_enqueue('mail', '{"to": null}', queue => 'default', priority => 7,
        at => '2027-01-01 09:00+01', max_attempts => 2, backoff => 'fixed', retry_delay => '2 s',
        max_retry_delay => '1 min', jitter => 0, timeout => '90 s', unique_key => 'k', unique_period => '1 h',
        on_conflict => 'replace', tags => ARRAY['a', 'b'], metadata => '{"by": null}')"""
    first = ask(psql, full)
    run = run_row(store, first)
    retry = {"backoff": "fixed", "delay_seconds": 2, "max_delay_seconds": 60, "jitter": 0}
    expected = {
        "schedule_id": None,
        "kind": "mail",
        "queue": "default",
        "priority": 7,
        "params": {"to": None},
        "available_at": datetime(2027, 1, 1, 8, tzinfo=UTC),
        "max_attempts": 2,
        "retry": retry,
        "timeout_seconds": 90.0,
        "unique_key": "k",
        "tags": ["a", "b"],
        "metadata": {"by": None},
    }
    assert {key: run[key] for key in expected} == expected
    assert ask(psql, full) == first, "the run of the key is kept, and its id returned"
    later = run_row(store, ask(psql, """SELECT batchd_enqueue('mail', '{"to": 1}', delay => '1 hour')"""))
    assert abs(later["available_at"] - later["created_at"] - timedelta(hours=1)) < timedelta(seconds=5)


def test_the_function_is_part_of_the_callers_transaction(store: Database, psql: psycopg.Connection[Any]) -> None:
    """The run comes and goes with it."""
    with psql.transaction(force_rollback=True):
        ask(psql, "SELECT batchd_enqueue('welcome')")
    assert fetch(store, "SELECT count(*) FROM batchd_runs") == [0]


def test_the_commit_wakes_the_daemons(store: Database, psql: psycopg.Connection[Any]) -> None:
    """They hear of it as of everything else."""
    with closing(store.dialect.wake_source(store.engine)) as listening:
        ask(psql, "SELECT batchd_enqueue('welcome')")
        assert listening.wait(timedelta(seconds=20)) == {Topic.RUNS}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("'nope'", "there is no job and no kind 'nope'"),
        ("NULL", "names neither a job nor a kind"),
        ("'welcome', queue => 'crit'", "there is no queue 'crit'"),
        ("'welcome', '[1]'", "params must be a JSON object"),
        ("""'welcome', '{"too": 1}'""", "kind 'mail' takes no parameter 'too'"),
        ("""'welcome', '{"password": "x"}'""", "parameter 'password' is a secret"),
        ("'mail'", "kind 'mail' needs the parameter 'to'"),
        ("'welcome', priority => 5000", "priority must be between"),
        ("'welcome', max_attempts => 0", "max_attempts must be between"),
        ("'welcome', backoff => 'quadratic'", "backoff must be exponential, linear or fixed"),
        ("'welcome', at => now(), delay => '1 s'", "either at or delay"),
        ("'welcome', delay => '-1 s'", "delay must not be negative"),
        ("'welcome', delay => '20000 years'", "nor longer than 10 years"),
        ("'welcome', at => 'infinity'", "beyond the calendar"),
        ("'welcome', retry_delay => '-1 s'", "must not be negative"),
        ("'welcome', jitter => 2", "jitter must be between 0 and 1"),
        ("'welcome', timeout => '0'", "timeout must be longer than nothing"),
        ("'welcome', unique_key => ''", "unique_key must have 1 to 200 characters"),
        ("'welcome', unique_period => '1 h'", "need a unique_key"),
        ("'welcome', unique_key => 'k', on_conflict => 'drop'", "on_conflict must be keep or replace"),
        ("'welcome', metadata => '[]'", "metadata must be a JSON object"),
    ],
)
def test_the_function_refuses_what_cannot_be(shared_psql: psycopg.Connection[Any], call: str, said: str) -> None:
    """With an error that says what, for the driver of whatever language."""
    with pytest.raises(pg.InvalidParameterValue) as raised:
        ask(shared_psql, f"SELECT batchd_enqueue({call})")
    assert said in str(raised.value)
    assert ask(shared_psql, "SELECT count(*) FROM batchd_runs") == 0


@pytest.fixture(scope="module")
def shared_psql(postgres_server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a store that no test of it changes."""
    with fresh_database(postgres_server) as url, closing(prepared(url)), psycopg.connect(url, autocommit=True) as made:
        yield made


def test_the_tables_are_found_from_any_search_path(postgres_url: str) -> None:
    """The store has a schema of its own, and the caller's path does not name it."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA jobs")
    with closing(open_database(f"{postgres_url}&options=-csearch_path%3Djobs")) as store:
        migrate(store)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        run_id = ask(connection, "SELECT jobs.batchd_enqueue('anything', unique_key => 'k')")
        assert ask(connection, "SELECT id FROM jobs.batchd_runs") == run_id


def test_the_printed_sql_makes_the_functions(postgres_server: PostgresServer) -> None:
    """`batchd migrate --sql | psql` is enough."""
    with fresh_database(postgres_server) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute(migration_sql("postgresql").encode())
        assert ask(connection, "SELECT batchd_enqueue('anything')") == 1


@pytest.fixture
def lite(sqlite_url: str) -> Iterator[tuple[Database, sqlite3.Connection]]:
    """Such a store on SQLite, and a connection of somebody else."""
    file = sqlite_url.removeprefix("sqlite:///")
    with closing(prepared(sqlite_url)) as made, closing(sqlite3.connect(file, isolation_level=None)) as connection:
        yield made, connection


def last(store: Database) -> dict[str, Any]:
    """The newest run."""
    (run_id,) = fetch(store, "SELECT max(id) FROM batchd_runs")
    return run_row(store, run_id)


def test_an_insert_on_sqlite_queues_a_run(lite: tuple[Database, sqlite3.Connection]) -> None:
    """The job's settings where nothing is said, else what is said."""
    store, connection = lite
    params = json.dumps({"to": True, "cc": ["ä", None]})
    connection.execute("INSERT INTO batchd_enqueue (name, params) VALUES ('welcome', ?)", (params,))
    run = last(store)
    assert (run["schedule_id"], run["kind"], run["queue"], run["priority"]) == ("welcome", "mail", "critical", 5)
    assert run["params"] == {"to": True, "cc": ["ä", None], "n": 1.5}
    assert (run["state"], run["created_by"], run["max_attempts"], run["timeout_seconds"]) == ("queued", "sql", 3, 60.0)
    assert abs(run["available_at"] - run["created_at"]) < timedelta(seconds=1)
    connection.execute(
        "INSERT INTO batchd_enqueue (name, params, queue, at, retry, tags, metadata, max_attempts)"
        """ VALUES ('mail', '{"to": "x"}', 'default', '2027-01-01T09:00:00+01:00', '{"backoff": "fixed"}',"""
        """ '["a"]', '{"by": 1}', 2)"""
    )
    assert (last(store)["limit_key"], last(store)["mutex"]) == (None, None)
    for params, key in (('{"to": "ä"}', "mail:ä1!"), ('{"to": "ä", "cc": {"y": 2}}', "mail:ä!")):
        connection.execute("INSERT INTO batchd_enqueue (name, params) VALUES ('welcome', ?)", (params,))
        assert (last(store)["limit_key"], last(store)["mutex"]) == (key, "m")
        connection.execute("DELETE FROM batchd_runs WHERE id = (SELECT max(id) FROM batchd_runs)")
    run = last(store)
    assert (run["schedule_id"], run["available_at"]) == (None, datetime(2027, 1, 1, 8, tzinfo=UTC))
    assert run["retry"] == {"backoff": "fixed", "delay_seconds": 10.0, "max_delay_seconds": 3600.0, "jitter": 0.1}
    assert (run["tags"], run["metadata"], run["max_attempts"]) == (["a"], {"by": 1}, 2)


def test_an_insert_on_sqlite_keeps_the_run_of_its_unique_key(lite: tuple[Database, sqlite3.Connection]) -> None:
    """Unfinished, or succeeded within the period; and it is part of the transaction."""
    store, connection = lite
    columns = "name, unique_key, unique_period_seconds, delay_seconds"
    insert = f"INSERT INTO batchd_enqueue ({columns}) VALUES ('welcome', 'k', 60, 5)"
    connection.execute("BEGIN")
    connection.execute(insert)
    connection.execute("ROLLBACK")
    assert fetch(store, "SELECT count(*) FROM batchd_runs") == [0]
    connection.execute(insert)
    connection.execute(insert)
    assert fetch(store, "SELECT count(*) FROM batchd_runs") == [1]
    run = last(store)
    assert abs(run["available_at"] - run["created_at"] - timedelta(seconds=5)) < timedelta(seconds=1)
    execute(store, "UPDATE batchd_runs SET state = 'succeeded', finished_at = available_at")
    connection.execute(insert)
    assert fetch(store, "SELECT count(*) FROM batchd_runs") == [1]
    execute(store, "UPDATE batchd_runs SET created_at = '2026-01-01T00:00:00.000000Z'")
    connection.execute(insert)
    assert fetch(store, "SELECT count(*) FROM batchd_runs") == [2]


@pytest.mark.parametrize(
    ("columns", "values", "said"),
    [
        ("name", "'nope'", "no job and no kind"),
        ("params", "'{}'", "name is missing"),
        ("name, queue", "'welcome', 'crit'", "no queue of that name"),
        ("name, params", "'welcome', '[1]'", "params must be a JSON object"),
        ("name, params", """'welcome', '{"too": 1}'""", "does not take one of the params"),
        ("name, params", """'welcome', '{"password": 1}'""", "does not take one of the params"),
        ("name", "'mail'", "needs another"),
        ("name, at", "'welcome', 'soon'", "at must be a moment"),
        ("name, priority", "'welcome', 5000", "priority must be between"),
        ("name, tags", "'welcome', 'a'", "tags must be"),
        ("name, unique_period_seconds", "'welcome', 5", "needs a unique_key"),
    ],
)
def test_an_insert_on_sqlite_refuses_what_cannot_be(
    lite: tuple[Database, sqlite3.Connection], columns: str, values: str, said: str
) -> None:
    """With an error that says what."""
    store, connection = lite
    with pytest.raises(sqlite3.IntegrityError, match=said):
        connection.execute(f"INSERT INTO batchd_enqueue ({columns}) VALUES ({values})")
    assert fetch(store, "SELECT count(*) FROM batchd_runs") == [0]
