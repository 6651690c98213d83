"""Enqueue from anywhere: whatever the connection, the job is there exactly when the caller's data is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from batchd import AsyncClient, Client, EnqueueRefused, RunRequest
from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.errors import NoPermission, SchemaMismatch, UsageError
from batchd.store.known_names import KindParams, register
from batchd.store.migrate import migrate
from tests.support.cleaning import execute, fetch
from tests.support.databases import open_database
from tests.support.enqueue_doors import DOORS, Door, is_for
from tests.support.store_rows import add_schedule, run_row

MAIL = KindParams(frozenset({"to", "cc", "password"}), frozenset({"to"}), frozenset({"password"}))
NEW_YEAR = datetime(2027, 1, 1, 9, tzinfo=UTC)


@pytest.fixture
def store(database: Database) -> Database:
    """A store that knows a job, two kinds and two queues, in the database that has the caller's table."""
    migrate(database)
    add_schedule(
        database,
        "welcome",
        kind="mail",
        params={"to": "a", "cc": "b"},
        queue="critical",
        priority=5,
        limit_key="mail:{to}",
        mutex="m",
    )
    call = KindParams(frozenset({"target", "arguments"}), frozenset({"target"}), frozenset())
    register(database, {"mail": MAIL, "call": call, "noop": KindParams(None, frozenset(), frozenset())}, ["critical"])
    execute(database, "CREATE TABLE orders (number integer)")
    return database


@pytest.fixture
def client(store: Database, database_url: str) -> Iterator[Client]:
    """A client of the store."""
    with Client(database_url) as made:
        yield made


def counts(store: Database) -> tuple[int, int]:
    """How many orders and how many runs there are."""
    (orders,) = fetch(store, "SELECT count(*) FROM orders")
    (runs,) = fetch(store, "SELECT count(*) FROM batchd_runs")
    return orders, runs


def doors_to(store: Database, url: str) -> Iterator[tuple[str, Door]]:
    """Each door that there is to the database, with the store empty again."""
    for name, door in DOORS.items():
        if is_for(name, url):
            execute(store, "DELETE FROM batchd_runs", "DELETE FROM orders")
            yield name, door


def test_the_run_is_there_exactly_when_the_callers_data_is(store: Database, database_url: str) -> None:
    """Rolled back, neither is; committed, both are, under the ids that were told."""
    wanted = [RunRequest("welcome", {"to": "x"}), RunRequest("noop", unique_key="k"), RunRequest("noop")]
    for name, door in doors_to(store, database_url):
        door(database_url, wanted, False)
        assert counts(store) == (0, 0), name
        enqueued = door(database_url, wanted, True)
        assert counts(store) == (1, 3), name
        assert [each.outcome.value for each in enqueued] == ["queued"] * 3
        kinds = [run_row(store, each.id)["kind"] for each in enqueued]
        assert kinds == ["mail", "noop", "noop"], name


def test_every_option_reaches_the_run(store: Database, database_url: str) -> None:
    """Whoever asks, the row is the same: what is said, and the job's own settings where nothing is."""
    said = RunRequest(
        "welcome",
        {"to": "x", "cc": None},
        queue="default",
        priority=-3,
        at=NEW_YEAR,
        max_attempts=7,
        backoff="linear",
        retry_delay="2s",
        max_retry_delay=timedelta(minutes=5),
        jitter=0,
        timeout=90,
        unique_key="welcome:x",
        unique_period="1h",
        tags=["import", "größe"],
        metadata={"by": {"user": 5}},
    )
    unsaid = [RunRequest("welcome", {"to": "y"}, backoff="exponential"), RunRequest("mail", {"to": "z"}, delay="1h")]
    retry = {"backoff": "linear", "delay_seconds": 2.0, "max_delay_seconds": 300.0, "jitter": 0.0}
    expected = {
        "schedule_id": "welcome",
        "kind": "mail",
        "queue": "default",
        "priority": -3,
        "params": {"to": "x", "cc": None},
        "available_at": NEW_YEAR,
        "max_attempts": 7,
        "timeout_seconds": 90.0,
        "retry": retry,
        "unique_key": "welcome:x",
        "tags": ["import", "größe"],
        "metadata": {"by": {"user": 5}},
        "state": "queued",
        "created_by": "client",
        "attempt": 0,
    }
    for name, door in doors_to(store, database_url):
        first, second, third = (run_row(store, each.id) for each in door(database_url, [said, *unsaid], True))
        assert {key: first[key] for key in expected} == expected, name
        assert (second["queue"], second["priority"], second["max_attempts"]) == ("critical", 5, 3)
        assert second["params"] == {"to": "y", "cc": "b"}
        assert (second["timeout_seconds"], second["tags"], second["metadata"]) == (60.0, None, None)
        assert second["retry"] == {
            "backoff": "exponential",
            "delay_seconds": 1.0,
            "max_delay_seconds": 1.0,
            "jitter": 0.0,
        }
        assert abs(second["available_at"] - second["created_at"]) < timedelta(seconds=5)
        assert (first["limit_key"], second["limit_key"], third["limit_key"]) == ("mail:x", "mail:y", None)
        assert (first["mutex"], third["mutex"]) == ("m", None)
        assert (third["schedule_id"], third["kind"], third["queue"]) == (None, "mail", "default")
        assert (third["max_attempts"], third["timeout_seconds"]) == (3, 3600.0)
        assert abs(third["available_at"] - third["created_at"] - timedelta(hours=1)) < timedelta(seconds=5)


_WRONG: dict[str, tuple[RunRequest, str]] = {
    "name": (RunRequest("welcom"), "there is no job and no kind 'welcom'"),
    "queue": (RunRequest("noop", queue="critcal"), "there is no queue 'critcal'"),
    "param": (RunRequest("welcome", {"too": 1}), "kind 'mail' takes no parameter 'too'"),
    "argument": (
        RunRequest("call", {"user": 1}),
        "kind 'call' takes no parameter 'user'; what its function takes goes into 'arguments'",
    ),
    "missing": (RunRequest("mail"), "kind 'mail' needs the parameter 'to'"),
    "secret": (RunRequest("welcome", {"password": "x"}), "parameter 'password' is a secret"),
}


def test_unknown_names_are_refused_and_nothing_is_queued(store: Database, database_url: str) -> None:
    """Also not what stood before them; and all that is wrong is said at once."""
    for name, door in doors_to(store, database_url):
        if name == "daemon":
            continue  # whoever writes a kind is trusted to know the names
        alone, said = _WRONG["name"]
        with pytest.raises(EnqueueRefused) as raised:
            door(database_url, [alone], True)
        assert raised.value.message == said, name
        with pytest.raises(EnqueueRefused) as raised:
            door(database_url, [RunRequest("noop"), *(wrong for wrong, _said in _WRONG.values())], True)
        for place, (_wrong, said) in enumerate(_WRONG.values(), start=2):
            assert f"run {place}: {said}" in raised.value.message, name
        assert counts(store)[1] == 0, name


def test_a_refusal_leaves_the_transaction_usable(postgres_url: str) -> None:
    """Who catches a refusal goes on in the same transaction: PostgreSQL has not seen an error."""
    with closing(open_database(postgres_url)) as store, Client(postgres_url) as client:
        migrate(store)
        execute(store, "CREATE TABLE orders (number integer)")
        register(store, {"noop": KindParams(None, frozenset(), frozenset())}, [])
        with psycopg.connect(postgres_url) as connection:
            connection.execute("INSERT INTO orders VALUES (7)")
            with pytest.raises(EnqueueRefused):
                client.enqueue("nope", connection=connection)
            client.enqueue("noop", connection=connection)
        assert counts(store) == (1, 1)


def test_a_store_that_knows_nothing_refuses_nothing(database: Database, database_url: str) -> None:
    """Before the first daemon nobody can say what is wrong; a name that is no job is then a kind."""
    migrate(database)
    with Client(database_url) as client:
        run = client.run(client.enqueue("anything", {"n": 1}, queue="any"))
    assert (run.kind, run.schedule_id, run.queue, run.params) == ("anything", None, "any", {"n": 1})


def test_many_go_at_once(store: Database, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some thousands in one call: in their order, each with its id, in one transaction."""
    count = 2_500
    enqueued = client.enqueue_many(RunRequest("noop", {"n": n}) for n in range(count))
    ids = [each.id for each in enqueued]
    assert len(set(ids)) == count
    assert run_row(store, ids[1_234])["params"] == {"n": 1_234}
    assert client.enqueue_many([]) == ()
    with pytest.raises(EnqueueRefused, match=f"run {count + 1}: there is no job and no kind 'nope'"):
        client.enqueue_many([*(RunRequest("noop") for _ in range(count)), RunRequest("nope")])
    monkeypatch.setattr("batchd.client.client._AT_ONCE", 1_000)
    with pytest.raises(EnqueueRefused, match=f"run {count}: there is no job and no kind 'nope'"):
        client.enqueue_many([*(RunRequest("noop") for _ in range(count - 1)), RunRequest("nope")])
    assert counts(store)[1] == count


def test_waiting_reading_and_cancelling(store: Database, client: Client) -> None:
    """What became of a run is read by its id or by what enqueue returned."""
    enqueued = client.enqueue("noop", {"n": 1}, tags=["a"], metadata={"b": 1})
    run = client.run(enqueued)
    assert (run.state, run.params, run.tags, run.metadata) == ("queued", {"n": 1}, ["a"], {"b": 1})
    with pytest.raises(TimeoutError, match="still queued"):
        client.wait(enqueued, timeout=0.05)
    assert client.cancel(enqueued).value == "cancelled"
    assert client.wait(enqueued.id).state == RunState.CANCELLED
    with pytest.raises(UsageError, match="there is no run 4711"):
        client.run(4711)


async def _asynchronously(url: str) -> list[Any]:
    async with AsyncClient(url) as client:
        enqueued = await client.enqueue("noop")
        waiting = (await client.run(enqueued)).state
        with pytest.raises(TimeoutError):
            await client.wait(enqueued, timeout=timedelta(milliseconds=20))
        await client.cancel(enqueued)
        return [waiting, (await client.wait(enqueued, timeout=5)).state]


def test_the_asynchronous_client_does_the_same(store: Database, database_url: str) -> None:
    """With connections of its own."""
    assert asyncio.run(_asynchronously(database_url)) == ["queued", "cancelled"]


def test_a_connection_of_the_wrong_sort_is_told_so(postgres_url: str) -> None:
    """Asynchronous to the synchronous client and the other way round, and what is no connection at all."""

    async def crosswise() -> None:
        async with (
            await psycopg.AsyncConnection.connect(postgres_url) as connection,
            AsyncClient(postgres_url) as other,
        ):
            with pytest.raises(UsageError, match="is asynchronous"):
                client.enqueue("noop", connection=connection)
            with psycopg.connect(postgres_url) as plain, pytest.raises(UsageError, match="is not asynchronous"):
                await other.enqueue("noop", connection=plain)

    with Client(postgres_url) as client:
        asyncio.run(crosswise())
        with pytest.raises(UsageError, match="cannot enqueue through a"):
            client.enqueue("noop", connection=object())


def test_a_database_without_a_store_is_told_so(empty_url: str) -> None:
    """Whatever the driver says about missing tables and functions."""
    with closing(open_database(empty_url)) as database, database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (number integer)")
    with Client(empty_url) as client:
        for call in (lambda: client.enqueue("noop"), lambda: client.run(1)):
            with pytest.raises(SchemaMismatch, match="has no batchd store"):
                call()
    if empty_url.startswith("postgresql"):
        with (
            Client(empty_url) as client,
            psycopg.connect(empty_url) as plain,
            pytest.raises(SchemaMismatch, match="has no batchd store"),
        ):
            client.enqueue("noop", connection=plain)


def test_a_role_needs_no_more_than_is_documented(postgres_url: str) -> None:
    """The grants of docs/enqueue.md suffice for it, and without them it is told so."""
    with closing(open_database(postgres_url)) as store:
        migrate(store)
        execute(store, "CREATE ROLE shop", "GRANT USAGE ON SCHEMA public TO shop")
        with Client(postgres_url) as client, psycopg.connect(postgres_url) as connection:
            connection.execute("SET ROLE shop")
            with pytest.raises(NoPermission, match="may not enqueue"):
                client.enqueue("noop", connection=connection)
        execute(
            store,
            "GRANT SELECT ON batchd_schedules, batchd_catalog TO shop",
            "GRANT SELECT, INSERT, UPDATE ON batchd_runs TO shop",
        )
        with Client(postgres_url) as client, psycopg.connect(postgres_url) as connection:
            connection.execute("SET ROLE shop")
            client.enqueue("noop", unique_key="a", unique_period=60, connection=connection)
            client.enqueue("noop", {"n": 2}, unique_key="a", on_conflict="replace", connection=connection)
        assert fetch(store, "SELECT count(*) FROM batchd_runs") == [1]
        execute(store, "DROP OWNED BY shop", "DROP ROLE shop")
