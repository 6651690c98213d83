"""Facts about the store itself."""

from __future__ import annotations

from sqlalchemy import Connection, select

from batchd.db.engine import Database
from batchd.store.schema import meta

STORE_ID = "store_id"


def store_id(store: Database) -> str:
    """Return the store's uuid, which marks its checkpoints in the databases of its jobs."""
    with store.reading() as connection:
        return str(connection.execute(select(meta.c.value).where(meta.c.key == STORE_ID)).scalar_one())


def value_of(connection: Connection, key: str) -> str | None:
    """Return a fact, or None, in the caller's transaction."""
    return connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar_one_or_none()
