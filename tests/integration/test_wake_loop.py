"""The wake loop hears commits, survives a broken connection, and stops when asked."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue

import psycopg
import pytest
from sqlalchemy import insert

from batchd.clock import SystemClock
from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.store.schema import meta, metadata
from batchd.wake_loop import WakeLoop
from tests.support.databases import open_database


@pytest.fixture
def heard() -> SimpleQueue[frozenset[Topic]]:
    """What the loop passed on."""
    return SimpleQueue()


@pytest.fixture
def listening(database: Database, heard: SimpleQueue[frozenset[Topic]]) -> Iterator[WakeLoop]:
    """A loop that has begun to listen."""
    metadata.create_all(database.engine)
    loop = WakeLoop(database, heard.put, SystemClock())
    loop.start()
    assert heard.get(timeout=10) == frozenset(Topic), "a new listener may have missed anything"
    yield loop
    assert loop.stop(SystemClock().monotonic() + 10)
    loop.close()


def test_a_commit_wakes_the_rooms(
    database: Database, listening: WakeLoop, heard: SimpleQueue[frozenset[Topic]]
) -> None:
    """Within a second, on every dialect."""
    with database.writing() as connection:
        connection.execute(insert(meta).values(key="a", value="b"))
        database.dialect.notify(connection, [Topic.SCHEDULES])
    assert Topic.SCHEDULES in heard.get(timeout=1)


def test_a_broken_connection_is_replaced_and_everybody_woken(
    postgres_url: str, heard: SimpleQueue[frozenset[Topic]]
) -> None:
    """What was notified in between would otherwise be lost."""
    store = open_database(postgres_url)
    loop = WakeLoop(store, heard.put, SystemClock())
    loop.start()
    heard.get(timeout=10)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
    assert heard.get(timeout=10) == frozenset(Topic)
    assert loop.stop(SystemClock().monotonic() + 10)
    loop.close()
    store.close()
