"""Facts about the store itself."""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid5

from sqlalchemy import Connection, insert, inspect, select, update

from batchd.db.engine import Database
from batchd.store.schema import meta, runs

STORE_ID = "store_id"

RECORD = "[record]"
"""What stands among the names of databases for the store where runs record what they did outside any database."""


def store_id(store: Database) -> str:
    """Return the store's uuid, which marks its checkpoints in the databases of its jobs."""
    with store.reading() as connection:
        return str(connection.execute(select(meta.c.value).where(meta.c.key == STORE_ID)).scalar_one())


def has_tables(database: Database) -> bool:
    """Return whether the store was made; a SQLite file that does not exist is not created by asking."""
    if database.dialect.name == "sqlite":
        file = database.engine.url.database
        if not file or not Path(file).exists():
            return False
    with database.reading() as connection:
        return inspect(connection).has_table(runs.name)


@functools.cache
def record_id(store_id: str) -> str:
    """Return the uuid that stands for the store where runs record what they did outside any database.

    Not the store's own, under which checkpoints are kept: the store may well be the database that a job changes.
    """
    return str(uuid5(UUID(store_id), RECORD))


def database_time(store: Database) -> datetime:
    """Return what time it is by the store's clock: the cheapest proof that it answers."""
    with store.reading() as connection:
        moment: datetime = connection.execute(select(store.dialect.now())).scalar_one()
        return moment


def value_of(connection: Connection, key: str) -> str | None:
    """Return a fact, or None, in the caller's transaction."""
    return connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar_one_or_none()


def set_value(connection: Connection, key: str, value: str) -> None:
    """Write a fact in the caller's transaction."""
    changed = connection.execute(update(meta).where(meta.c.key == key).values(value=value))
    if changed.rowcount == 0:
        connection.execute(insert(meta).values(key=key, value=value))
