"""The outbox: one row a state change, committed with it, and read in order by whoever wants to know.

Rows may appear out of the order of their ids, so `Reader` goes no further than the table's horizon; see
`batchd.store.horizon`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.store import horizon
from batchd.store.horizon import Horizon
from batchd.store.schema import listeners, outbox, runs


@dataclass(frozen=True, slots=True)
class Notice:
    """One row of the outbox, with what the run's row says now (None when the run is gone)."""

    id: int
    created_at: datetime
    event: str
    run_id: int | None
    schedule_id: str | None
    payload: Mapping[str, Any]
    kind: str | None
    queue: str | None
    state: str | None
    result: Mapping[str, Any] | None


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
    database.dialect.insert_all(connection, outbox, notices, stamped=["created_at"])


def notice(event: str, *, run_id: int | None, schedule_id: str | None, **payload: Any) -> JsonObject:
    """Return one outbox row, for `add_all`."""
    return {"event": event, "run_id": run_id, "schedule_id": schedule_id, "payload": payload}


def add_started(connection: Connection, database: Database, claimed: Sequence[Any]) -> None:
    """Tell in the caller's transaction that runs have started, when a listener wants to know.

    `claimed` are rows with id, schedule_id, kind, queue and attempt.
    """
    if claimed and _is_wanted(connection, database, "wants_started"):
        started = [
            notice(
                "run.started",
                run_id=row.id,
                schedule_id=row.schedule_id,
                job=row.schedule_id,
                kind=row.kind,
                queue=row.queue,
                state="running",
                attempt=row.attempt,
            )
            for row in claimed
        ]
        add_all(connection, database, started)


def wants_progress(connection: Connection, database: Database) -> bool:
    """Return whether a listener wants to know of progress."""
    return _is_wanted(connection, database, "wants_progressed")


def newest_id(connection: Connection) -> int:
    """Return the newest id; 0 when there is none."""
    return horizon.newest_id(connection, outbox)


class Reader:
    """Reads the outbox in order and leaves no row out, however late it commits. For one thread."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._horizon = Horizon(outbox, store.dialect)

    def after(self, last_id: int, limit: int) -> tuple[Notice, ...]:
        """Return the rows behind `last_id`, oldest first, as far as nothing can appear among them any more."""
        # Two transactions, so that the rows are read after the look at the writers under every isolation level.
        settled = self.settled_after(last_id)
        if settled <= last_id:
            return ()
        columns = [outbox.c[name] for name in ("id", "created_at", "event", "run_id", "schedule_id", "payload")]
        of_run = [runs.c[name] for name in ("kind", "queue", "state", "result")]
        statement = (
            select(*columns, *of_run)
            .outerjoin(runs, runs.c.id == outbox.c.run_id)
            .where(outbox.c.id > last_id, outbox.c.id <= settled)
            .order_by(outbox.c.id)
            .limit(limit)
        )
        with self._store.reading() as connection:
            return tuple(Notice(**row) for row in connection.execute(statement).mappings())

    def settled_after(self, last_id: int) -> int:
        """Return the id up to which nothing can appear any more; at most `last_id` when there is nothing new."""
        with self._store.reading() as connection:
            self._horizon.look(connection, known=last_id)
        return self._horizon.settled


def _is_wanted(connection: Connection, database: Database, wish: str) -> bool:
    return connection.execute(database.dialect.composed.once(_listener_with, wish)).first() is not None


def _listener_with(wish: str) -> Select[Any]:
    return select(listeners.c.name).where(listeners.c[wish]).limit(1)
