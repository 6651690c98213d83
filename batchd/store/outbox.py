"""The outbox: one row a state change, committed with it, so that nothing is told that did not happen.

Alerts and the dashboard read it by id; retention prunes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, insert

from batchd.db.engine import Database
from batchd.domain.job import JsonValue
from batchd.store.schema import outbox


def add(
    connection: Connection,
    database: Database,
    event: str,
    run_id: int | None,
    schedule_id: str | None,
    payload: Mapping[str, JsonValue],
) -> None:
    """Add the event to the caller's transaction. `event` is a name such as "run.finished"; no secret in `payload`."""
    connection.execute(
        insert(outbox).values(
            created_at=database.dialect.now(),
            event=event,
            run_id=run_id,
            schedule_id=schedule_id,
            payload=dict(payload),
        )
    )
