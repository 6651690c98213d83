"""The outbox: one row a state change, committed with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.store.schema import outbox


def add(
    connection: Connection,
    database: Database,
    event: str,
    run_id: int | None,
    schedule_id: str | None,
    payload: JsonObject,
) -> None:
    """Write one notice in the caller's transaction."""
    add_all(connection, database, [notice(event, run_id=run_id, schedule_id=schedule_id, **payload)])


def add_all(connection: Connection, database: Database, notices: Sequence[JsonObject]) -> None:
    """Write the notices in the caller's transaction."""
    if notices:
        connection.execute(outbox.insert().values(created_at=database.dialect.now()), list(notices))


def notice(event: str, *, run_id: int | None, schedule_id: str | None, **payload: Any) -> JsonObject:
    """Return one outbox row, for `add_all`."""
    return {"event": event, "run_id": run_id, "schedule_id": schedule_id, "payload": payload}
