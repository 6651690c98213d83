"""Pausing queues, in the store, so that it holds for every daemon and over restarts."""

from __future__ import annotations

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.store import audit
from batchd.store.audit import Actor
from batchd.store.schema import queues


def pause(store: Database, queue: str, *, by: Actor | None = None) -> bool:
    """Let no daemon claim runs of the queue until `resume`; return False when it was paused already."""
    return _set_paused(store, queue, paused=True, by=by)


def resume(store: Database, queue: str, *, by: Actor | None = None) -> bool:
    """Let the daemons claim runs of the queue again; return False when it was not paused."""
    return _set_paused(store, queue, paused=False, by=by)


def _set_paused(store: Database, queue: str, *, paused: bool, by: Actor | None) -> bool:
    now = store.dialect.now()
    with store.writing() as connection:
        # A row whose `paused_at` is as wanted is left alone, and not counted.
        is_news = queues.c.paused_at.is_(None) if paused else queues.c.paused_at.is_not(None)
        if paused:
            written = store.dialect.insert(queues).values(name=queue, paused_at=now, updated_at=now)
            statement = written.on_conflict_do_update(
                index_elements=[queues.c.name], set_={"paused_at": now, "updated_at": now}, where=is_news
            ).returning(queues.c.name)
            changed = connection.execute(statement).all()
        else:
            undone = queues.update().where(queues.c.name == queue, is_news).values(paused_at=None, updated_at=now)
            changed = connection.execute(undone.returning(queues.c.name)).all()
        if changed:
            audit.add(connection, store, by, "pause_queue" if paused else "resume_queue", queue=queue)
        store.dialect.notify(connection, [Topic.RUNS])
    return bool(changed)
