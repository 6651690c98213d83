"""Resume points, in the database that the job changes, so that a chunk and its checkpoint commit together.

A new attempt raises the fence in the row before its first chunk. From then on a chunk of an older attempt, which may
still run somewhere on a frozen machine, updates no row: it rolls back and stops. That is why the fence of a lease is
worth something in a database that knows nothing of leases.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, inspect, select, update

from batchd.db.engine import Database, Interrupts
from batchd.domain.job import JsonObject
from batchd.errors import LeaseLost
from batchd.store.job_schema import checkpoint_metadata, checkpoints


@dataclass(frozen=True, slots=True)
class CheckpointKey:
    """Whose checkpoint it is: the store, its run, and the claim that may write."""

    store_id: str
    run_id: int
    fence: int


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A resume point, and when it was saved."""

    state: JsonObject
    at: datetime


def take_over(database: Database, key: CheckpointKey, interrupts: Interrupts | None = None) -> JsonObject | None:
    """Fence older attempts out and return what they saved last, or None.

    Makes the table where it does not exist yet. Raises LeaseLost when a newer attempt has already taken over.
    """
    ensure_table(database)
    with database.writing(interrupts) as connection:
        row = connection.execute(
            select(checkpoints.c.fence, checkpoints.c.state)
            .where(checkpoints.c.store_id == key.store_id, checkpoints.c.run_id == key.run_id)
            .with_for_update()
        ).one_or_none()
        if row is not None and row.fence > key.fence:
            raise LeaseLost(f"run {key.run_id}: attempt with fence {row.fence} has taken over from {key.fence}")
        insert = database.dialect.insert(checkpoints).values(
            store_id=key.store_id,
            run_id=key.run_id,
            fence=key.fence,
            state=None,
            updated_at=database.dialect.now(),
        )
        taken = connection.execute(
            insert.on_conflict_do_update(
                index_elements=[checkpoints.c.store_id, checkpoints.c.run_id],
                set_={"fence": key.fence, "updated_at": database.dialect.now()},
                where=checkpoints.c.fence <= key.fence,
            ).returning(checkpoints.c.fence)  # an INSERT's rowcount is not kept by every driver
        ).one_or_none()
        if taken is None:
            raise LeaseLost(f"run {key.run_id}: a newer attempt has taken over")
        return None if row is None else row.state


def save(connection: Connection, database: Database, key: CheckpointKey, state: JsonObject) -> None:
    """Save the resume point in the chunk's own transaction; raises LeaseLost when a newer attempt has taken over."""
    saved = connection.execute(
        update(checkpoints)
        .where(
            checkpoints.c.store_id == key.store_id,
            checkpoints.c.run_id == key.run_id,
            checkpoints.c.fence == key.fence,
        )
        .values(state=state, updated_at=database.dialect.now())
    )
    if saved.rowcount != 1:
        raise LeaseLost(f"run {key.run_id}: a newer attempt has taken over; this chunk is rolled back")


def locked(connection: Connection, key: CheckpointKey) -> JsonObject | None:
    """Return what was saved last and keep others from saving until the transaction ends; raises LeaseLost as `save`.

    For an attempt whose chunks commit in several threads: each adds to what the others have saved.
    """
    row = connection.execute(
        select(checkpoints.c.state)
        .where(
            checkpoints.c.store_id == key.store_id,
            checkpoints.c.run_id == key.run_id,
            checkpoints.c.fence == key.fence,
        )
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise LeaseLost(f"run {key.run_id}: a newer attempt has taken over; this chunk is rolled back")
    state: JsonObject | None = row.state
    return state


def forget(database: Database, key: CheckpointKey) -> None:
    """Remove the checkpoint of a run, unless a newer attempt has taken it over; what is gone already is fine."""
    with database.writing() as connection:
        connection.execute(
            delete(checkpoints).where(
                checkpoints.c.store_id == key.store_id,
                checkpoints.c.run_id == key.run_id,
                checkpoints.c.fence <= key.fence,
            )
        )


def look(database: Database, store_id: str, run_id: int) -> SavedCheckpoint | None:
    """Return what the run saved last, for a person to see; changes nothing, and fences nobody out."""
    with database.reading() as connection:
        if not inspect(connection).has_table(checkpoints.name):
            return None
        row = connection.execute(
            select(checkpoints.c.state, checkpoints.c.updated_at).where(
                checkpoints.c.store_id == store_id, checkpoints.c.run_id == run_id
            )
        ).one_or_none()
    return None if row is None or row.state is None else SavedCheckpoint(row.state, row.updated_at)


def page(database: Database, store_id: str, *, after: int, limit: int) -> dict[int, int]:
    """Return run ids beyond `after` that have a checkpoint of that store, with their fences, lowest first."""
    with database.reading() as connection:
        rows = connection.execute(
            select(checkpoints.c.run_id, checkpoints.c.fence)
            .where(checkpoints.c.store_id == store_id, checkpoints.c.run_id > after)
            .order_by(checkpoints.c.run_id)
            .limit(limit)
        )
        return {row.run_id: row.fence for row in rows}


def has_table(database: Database) -> bool:
    """Return whether any job has ever kept a checkpoint in the database."""
    with database.reading() as connection:
        return inspect(connection).has_table(checkpoints.name)


def ensure_table(database: Database) -> None:
    """Make the table where it does not exist; several processes may try at once."""
    if has_table(database):
        return
    with database.writing() as connection:
        database.dialect.lock_for_transaction(connection, checkpoints.name)
        checkpoint_metadata.create_all(connection)
