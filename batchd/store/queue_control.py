"""The queues as a person sees and steers them: what waits, what runs, which are paused. The pause is in the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, case, func, select

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.run import UNFINISHED, RunState
from batchd.store.schema import queues, runs


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue: runs that may begin now, later, or when a mutex or key has room; runs that run, in all daemons."""

    name: str
    ready: int
    later: int
    parked: int
    running: int
    paused_at: datetime | None


def pause(store: Database, queue: str) -> bool:
    """Let no daemon claim runs of the queue until `resume`; return False when it was paused already."""
    return _set_paused(store, queue, paused=True)


def resume(store: Database, queue: str) -> bool:
    """Let the daemons claim runs of the queue again; return False when it was not paused."""
    return _set_paused(store, queue, paused=False)


def listed(store: Database) -> tuple[QueueView, ...]:
    """Return every queue that is paused or has unfinished runs, by name."""
    queued = runs.c.state == RunState.QUEUED.value
    is_free, is_due = runs.c.waits_for.is_(None), runs.c.available_at <= store.dialect.now()
    counts = {
        "ready": and_(queued, is_free, is_due),
        "later": and_(queued, is_free, ~is_due),
        "parked": and_(queued, ~is_free),
        "running": runs.c.state == RunState.RUNNING.value,
    }
    counted = (
        select(runs.c.queue, *(func.sum(case((which, 1), else_=0)).label(name) for name, which in counts.items()))
        .where(runs.c.state.in_([state.value for state in sorted(UNFINISHED)]))
        .group_by(runs.c.queue)
    )
    with store.reading() as connection:
        found = {row.queue: row for row in connection.execute(counted)}
        paused = {
            row.name: row.paused_at
            for row in connection.execute(
                select(queues.c.name, queues.c.paused_at).where(queues.c.paused_at.is_not(None))
            )
        }
    return tuple(
        QueueView(name, *(int(getattr(found.get(name), each, 0)) for each in counts), paused.get(name))
        for name in sorted(found.keys() | paused.keys())
    )


def _set_paused(store: Database, queue: str, *, paused: bool) -> bool:
    now = store.dialect.now()
    with store.writing() as connection:
        # A row whose `paused_at` is as wanted is left alone, and not counted.
        is_news = queues.c.paused_at.is_(None) if paused else queues.c.paused_at.is_not(None)
        if paused:
            written = store.dialect.insert(queues).values(name=queue, paused_at=now, updated_at=now)
            changed = connection.execute(
                written.on_conflict_do_update(
                    index_elements=[queues.c.name], set_={"paused_at": now, "updated_at": now}, where=is_news
                )
            )
        else:
            changed = connection.execute(
                queues.update().where(queues.c.name == queue, is_news).values(paused_at=None, updated_at=now)
            )
        store.dialect.notify(connection, [Topic.RUNS])
        return changed.rowcount == 1
