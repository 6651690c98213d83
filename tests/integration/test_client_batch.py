"""Batches from a client: queued together, and what is queued once all of them have ended."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import create_async_engine

from batchd import AsyncClient, Client, EnqueueRefused, RunRequest
from batchd.db.engine import Database
from batchd.errors import UsageError
from batchd.store.fan_outs import complete
from batchd.store.known_names import KindParams, register
from batchd.store.migrate import migrate
from batchd.store.queries import find_run
from batchd.store.schema import runs
from tests.support.cleaning import fetch
from tests.support.store_rows import add_schedule

ANY = KindParams(None, frozenset(), frozenset())
THREE = [RunRequest("noop", {"n": number}, unique_key=f"k{number}") for number in range(3)]
TELL = RunRequest("tell", {"text": "{succeeded} of {children}"})


@pytest.fixture
def store(database: Database) -> Database:
    """A store that knows a kind, and a job to be told at the end."""
    migrate(database)
    register(database, {"noop": ANY}, [])
    add_schedule(database, "tell", kind="noop", params={})
    return database


def end_all(store: Database, *, state: str = "succeeded") -> None:
    """End every run that is queued, as a daemon would."""
    with store.writing() as connection:
        ended = update(runs).where(runs.c.state == "queued").values(state=state, finished_at=store.dialect.now())
        connection.execute(ended)
    complete(store)


def test_what_comes_at_the_end_comes_once(store: Database, database_url: str) -> None:
    """Both, when all have succeeded, with the counts filled in."""
    with Client(database_url) as client:
        batch = client.batch(THREE, name="three", on_complete=TELL, on_success=RunRequest("tell", {"text": "all"}))
        assert len(batch.runs) == 3
        complete(store)
        assert fetch(store, "SELECT count(*) FROM batchd_runs WHERE schedule_id = 'tell'") == [0]
        end_all(store)
        complete(store)
        result = client.run(batch.id).result
        assert result is not None
        found = [find_run(store, int(result[end]["run"])) for end in ("on_complete", "on_success")]  # type: ignore[index, call-overload]
    assert [run and run.params for run in found] == [{"text": "3 of 3"}, {"text": "all"}]
    assert fetch(store, "SELECT count(*) FROM batchd_runs WHERE schedule_id = 'tell'") == [2]


def test_a_failure_leaves_the_success_out(store: Database, database_url: str) -> None:
    """`on_complete` comes all the same."""
    with Client(database_url) as client:
        client.batch(THREE, on_complete=TELL, on_success=RunRequest("tell", {"text": "all"}))
        end_all(store, state="failed")
    assert fetch(store, "SELECT count(*) FROM batchd_runs WHERE schedule_id = 'tell'") == [1]


def test_a_run_whose_key_is_taken_is_no_part_of_it(store: Database, database_url: str) -> None:
    """It belongs to whoever queued it; the others make the batch."""
    with Client(database_url) as client:
        client.enqueue("noop", unique_key="k1")
        assert len(client.batch(THREE).runs) == 2


def test_all_or_nothing(store: Database, database_url: str) -> None:
    """A name that nobody knows, among the runs or at the end, or the caller's rollback: nothing is queued."""
    with Client(database_url) as client:
        with pytest.raises(EnqueueRefused, match="no job and no kind 'nope'"):
            client.batch([*THREE, RunRequest("nope")])
        with pytest.raises(EnqueueRefused, match="the run at the batch's end: there is no job and no kind 'nope'"):
            client.batch(THREE, on_success=RunRequest("nope"))
        with pytest.raises(ZeroDivisionError), store.writing() as connection:
            client.batch(THREE, connection=connection)
            raise ZeroDivisionError
    assert fetch(store, "SELECT count(*) FROM batchd_runs") == [0]


def test_it_takes_part_in_an_asynchronous_transaction(store: Database, database_url: str) -> None:
    """It is there when that commits; without a connection the client makes its own."""
    url = database_url.replace("sqlite://", "sqlite+aiosqlite://").replace("postgresql://", "postgresql+psycopg://")

    async def queue() -> None:
        engine = create_async_engine(url)
        async with AsyncClient(database_url) as client:
            async with engine.begin() as connection:
                await client.batch(THREE, on_complete=TELL, connection=connection)
            await client.batch([RunRequest("noop")])
        await engine.dispose()

    asyncio.run(queue())
    assert fetch(store, "SELECT count(*) FROM batchd_runs WHERE parent_id IS NOT NULL") == [4]


def test_a_connection_of_psycopg_is_refused(store: Database, postgres_url: str, database_url: str) -> None:
    """In one sentence that says what to do."""
    with (
        Client(database_url) as client,
        psycopg.connect(postgres_url) as connection,
        pytest.raises(UsageError, match="cannot be queued on a connection of psycopg"),
    ):
        client.batch(THREE, connection=connection)
