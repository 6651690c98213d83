"""The outbox: one row a state change, committed with it, and read in order by whoever wants to know.

Ids are given out when a row is inserted, and rows are seen when their transaction commits: a row with a lower id may
well appear after one with a higher. A reader that only remembers its last id would then never see it. So `Reader` goes
no further than to where nothing can appear any more:

    1. it notes the newest id that it sees,
    2. then asks which transactions are at work on the outbox (they keep a lock on the table until they are over),
    3. and once all of those have ended, everything up to the noted id is there, or never will be.

A transaction that took an id before step 1 held its lock by then, and lets go of it only when its rows can be seen.
Only writers of the outbox count: a transaction elsewhere on the server, however long, holds nobody up, as it would with
a comparison of transaction ids (`pg_snapshot_xmin`). And nothing depends on transaction ids, which a dump and restore
into another server does not keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
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
    if claimed and _is_wanted(connection, listeners.c.wants_started):
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


def wants_progress(connection: Connection) -> bool:
    """Return whether a listener wants to know of progress."""
    return _is_wanted(connection, listeners.c.wants_progressed)


def newest_id(connection: Connection) -> int:
    """Return the newest id; 0 when there is none."""
    return int(connection.execute(select(func.coalesce(func.max(outbox.c.id), 0))).scalar_one())


class Reader:
    """Reads the outbox in order and leaves no row out, however late it commits. For one thread."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._settled = 0
        self._newest = 0
        self._open: frozenset[str] = frozenset()

    def after(self, last_id: int, limit: int) -> tuple[Notice, ...]:
        """Return the rows behind `last_id`, oldest first, as far as nothing can appear among them any more."""
        # Two transactions, so that the rows are read after the look at the writers under every isolation level.
        if self.settled_after(last_id) <= last_id:
            return ()
        columns = [outbox.c[name] for name in ("id", "created_at", "event", "run_id", "schedule_id", "payload")]
        of_run = [runs.c[name] for name in ("kind", "queue", "state", "result")]
        statement = (
            select(*columns, *of_run)
            .outerjoin(runs, runs.c.id == outbox.c.run_id)
            .where(outbox.c.id > last_id, outbox.c.id <= self._settled)
            .order_by(outbox.c.id)
            .limit(limit)
        )
        with self._store.reading() as connection:
            return tuple(Notice(**row) for row in connection.execute(statement).mappings())

    def settled_after(self, last_id: int) -> int:
        """Return the id up to which nothing can appear any more; at most `last_id` when there is nothing new."""
        with self._store.reading() as connection:
            self._look(connection, last_id)
        return self._settled

    def _look(self, connection: Connection, last_id: int) -> None:
        newest = newest_id(connection)
        if newest <= max(last_id, self._settled):
            return
        still_open = self._store.dialect.writers(connection, outbox)
        if not self._open & still_open:
            self._settled = max(self._settled, self._newest)
            self._newest, self._open = newest, still_open
        if not self._open & still_open:
            self._settled = self._newest


def _is_wanted(connection: Connection, wish: Any) -> bool:
    return connection.execute(select(listeners.c.name).where(wish).limit(1)).first() is not None
