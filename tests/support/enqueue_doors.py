"""The ways by which a caller's own transaction enqueues, each as one function of the same shape.

A door opens a transaction of its own driver, inserts an order into the caller's table, enqueues, and commits or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from batchd import AsyncClient, Client, Enqueued, RunRequest
from batchd.domain.run import CreatedBy
from batchd.store.enqueue import enqueue_each
from batchd.store.known_names import known_names
from batchd.store.requests import _new_run
from tests.support.databases import open_database

Door: TypeAlias = Callable[[str, Sequence[RunRequest], bool], tuple[Enqueued, ...]]
"""(store url, what to enqueue, whether to commit) to what became of it."""

ORDER = "INSERT INTO orders (number) VALUES (7)"


class TakenBack(Exception):
    """The caller changes its mind."""


def connection_door(url: str, wanted: Sequence[RunRequest], commit: bool) -> tuple[Enqueued, ...]:
    """SQLAlchemy's Connection."""
    with _engine(url) as engine, closing(Client(url)) as client, engine.connect() as connection:
        connection.execute(text(ORDER))
        enqueued = client.enqueue_many(wanted, connection=connection)
        (connection.commit if commit else connection.rollback)()
    return enqueued


def session_door(url: str, wanted: Sequence[RunRequest], commit: bool) -> tuple[Enqueued, ...]:
    """SQLAlchemy's Session."""
    with _engine(url) as engine, closing(Client(url)) as client, Session(engine) as session:
        session.execute(text(ORDER))
        enqueued = client.enqueue_many(wanted, connection=session)
        (session.commit if commit else session.rollback)()
    return enqueued


def async_connection_door(url: str, wanted: Sequence[RunRequest], commit: bool) -> tuple[Enqueued, ...]:
    """SQLAlchemy's AsyncConnection."""

    async def go() -> tuple[Enqueued, ...]:
        async with _async_engine(url) as engine, AsyncClient(url) as client, engine.connect() as connection:
            await connection.execute(text(ORDER))
            enqueued = await client.enqueue_many(wanted, connection=connection)
            await (connection.commit if commit else connection.rollback)()
        return enqueued

    return asyncio.run(go())


def async_session_door(url: str, wanted: Sequence[RunRequest], commit: bool) -> tuple[Enqueued, ...]:
    """SQLAlchemy's AsyncSession."""

    async def go() -> tuple[Enqueued, ...]:
        async with _async_engine(url) as engine, AsyncClient(url) as client, AsyncSession(engine) as session:
            await session.execute(text(ORDER))
            enqueued = await client.enqueue_many(wanted, connection=session)
            await (session.commit if commit else session.rollback)()
        return enqueued

    return asyncio.run(go())


def psycopg_door(url: str, wanted: Sequence[RunRequest], commit: bool) -> tuple[Enqueued, ...]:
    """Psycopg's Connection, with a row factory that gives dicts."""
    with closing(Client(url)) as client, psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute(ORDER)
        enqueued = client.enqueue_many(wanted, connection=connection)
        (connection.commit if commit else connection.rollback)()
    return enqueued


def async_psycopg_door(url: str, wanted: Sequence[RunRequest], commit: bool) -> tuple[Enqueued, ...]:
    """Psycopg's AsyncConnection."""

    async def go() -> tuple[Enqueued, ...]:
        async with AsyncClient(url) as client, await psycopg.AsyncConnection.connect(url) as connection:
            await connection.execute(ORDER)
            enqueued = await client.enqueue_many(wanted, connection=connection)
            await (connection.commit if commit else connection.rollback)()
        return enqueued

    return asyncio.run(go())


def daemons_door(url: str, wanted: Sequence[RunRequest], commit: bool) -> tuple[Enqueued, ...]:
    """What the daemon itself does, on both dialects: `enqueue_each`."""
    enqueued: list[Enqueued] = []

    def go(connection: Connection) -> None:
        connection.execute(text(ORDER))
        known = known_names(connection, [request.name for request in wanted])
        new = [_new_run(request, known) for request in wanted]
        enqueued.extend(enqueue_each(connection, store, new, created_by=CreatedBy.CLIENT))
        if not commit:
            raise TakenBack

    with closing(open_database(url)) as store:
        try:
            with store.writing() as connection:
                go(connection)
        except TakenBack:
            pass
    return tuple(enqueued)


def own_door(url: str, wanted: Sequence[RunRequest], commit: bool) -> tuple[Enqueued, ...]:
    """A connection of the client's own, which commits by itself; there is nothing to take back."""
    if not commit:
        return ()
    with closing(open_database(url)) as store, store.writing() as connection:
        connection.execute(text(ORDER))
    with Client(url) as client:
        return client.enqueue_many(wanted)


DOORS: dict[str, Door] = {
    "own": own_door,
    "connection": connection_door,
    "session": session_door,
    "async connection": async_connection_door,
    "async session": async_session_door,
    "psycopg": psycopg_door,
    "async psycopg": async_psycopg_door,
    "daemon": daemons_door,
}


def is_for(door: str, url: str) -> bool:
    """Whether there is such a door to the database."""
    return "psycopg" not in door or url.startswith("postgresql")


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    engine = create_engine(_url(url, "pysqlite"))
    try:
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def _async_engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(_url(url, "aiosqlite"))
    try:
        yield engine
    finally:
        await engine.dispose()


def _url(url: str, sqlite_driver: str) -> Any:
    parsed = make_url(url)
    driver = "psycopg" if parsed.get_backend_name() == "postgresql" else sqlite_driver
    return parsed.set(drivername=f"{parsed.get_backend_name()}+{driver}")
