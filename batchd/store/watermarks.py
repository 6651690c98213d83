"""What a job's last run left for the next one, in the database that the job changes, committed with the data.

How far a sync has come, and what its source said to be asked with next time. Keyed by the store and the job, so that
several stores can share a database.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, select

from batchd.db.engine import Database, Interrupts
from batchd.domain.job import JsonObject
from batchd.store.job_schema import checkpoint_metadata, watermarks


def find(database: Database, store: str, job: str, interrupts: Interrupts | None = None) -> JsonObject | None:
    """Return what the job left last, or None."""
    with database.reading(interrupts) as connection:
        if not inspect(connection).has_table(watermarks.name):
            return None
        state: JsonObject | None = connection.execute(
            select(watermarks.c.state).where(watermarks.c.store_id == store, watermarks.c.job == job)
        ).scalar_one_or_none()
        return state


def save(connection: Connection, database: Database, store: str, job: str, state: JsonObject, run_id: int) -> None:
    """Save it in the caller's transaction, which must save a checkpoint too: that keeps older attempts out."""
    if not inspect(connection).has_table(watermarks.name):
        database.dialect.lock_for_transaction(connection, watermarks.name)
        checkpoint_metadata.create_all(connection)
    values = {"state": state, "run_id": run_id, "updated_at": database.dialect.now()}
    insert = database.dialect.insert(watermarks).values(store_id=store, job=job, **values)
    connection.execute(
        insert.on_conflict_do_update(index_elements=[watermarks.c.store_id, watermarks.c.job], set_=values)
    )
