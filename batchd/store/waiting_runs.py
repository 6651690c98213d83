"""Since when runs wait that could begin: what an alert tells of, and `batchd status` and /metrics show."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from batchd.db.engine import Database
from batchd.domain.queue import QueueLimits
from batchd.domain.run import RunState
from batchd.store.limits import held_back
from batchd.store.schema import queues, runs


def oldest_ready(connection: Connection, store: Database, since: Any, limits: QueueLimits) -> dict[str, datetime]:
    """Return by queue since when its oldest claimable run waits, of those that wait since the moment `since` or longer.

    Not counted is what is held back on purpose: a paused queue, a limit that is full, a job that runs already.
    """
    other = runs.alias("other")
    is_held = (
        select(other.c.id)
        .where(other.c.state == RunState.RUNNING.value, other.c.concurrency_key == runs.c.concurrency_key)
        .exists()
    )
    paused = select(queues.c.name).where(queues.c.paused_at.is_not(None))
    is_ready = and_(runs.c.state == RunState.QUEUED.value, runs.c.waits_for.is_(None))
    statement = (
        select(runs.c.queue, func.min(runs.c.available_at, type_=runs.c.available_at.type))
        .where(
            is_ready,
            runs.c.available_at <= since,
            runs.c.queue.not_in(paused),
            or_(runs.c.concurrency_key.is_(None), ~is_held),
        )
        .group_by(runs.c.queue)
    )
    waiting = {row[0]: row[1] for row in connection.execute(statement)}
    held = held_back(connection, store, limits, waiting)
    return {queue: moment for queue, moment in waiting.items() if queue not in held}
