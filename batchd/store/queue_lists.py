"""Queues for pages: what waits in each, counted no further than is of use, however much there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store.run_lists import COUNTED_TO, Count, in_state
from batchd.store.schema import queues, runs

_READY_INDEX = (in_state(RunState.QUEUED), runs.c.waits_for.is_(None))
_PARKED_INDEX = (in_state(RunState.QUEUED), runs.c.waits_for.is_not(None))


_NONE = Count(0)


@dataclass(frozen=True, slots=True)
class QueueLine:
    """One queue: runs that may begin now, later, or when their mutex or key has room; runs that run, in all daemons.

    `oldest` is since when the longest-waiting run that may begin could have begun.
    """

    queue: str
    ready: Count = _NONE
    later: Count = _NONE
    parked: Count = _NONE
    running: int = 0
    oldest: datetime | None = None
    paused_at: datetime | None = None


def queue_lines(store: Database) -> tuple[QueueLine, ...]:
    """Return every queue that has unfinished runs or is paused, by name. Reads at most `COUNTED_TO` runs of each."""
    with store.reading() as connection:
        now = connection.execute(select(store.dialect.now())).scalar_one()
        stopped = select(queues.c.name, queues.c.paused_at).where(queues.c.paused_at.is_not(None))
        paused = {row.name: row.paused_at for row in connection.execute(stopped)}
        running = _by_queue(connection, in_state(RunState.RUNNING))
        parked = _by_queue(connection, and_(*_PARKED_INDEX))
        waiting = {queue: _waiting(connection, queue, now) for queue in _waiting_queues(connection)}
    none = (Count(0), Count(0), None)
    return tuple(
        QueueLine(
            name,
            *waiting.get(name, none)[:2],
            _bounded(parked.get(name, 0)),
            running.get(name, 0),
            waiting.get(name, none)[2],
            paused.get(name),
        )
        for name in sorted({*paused, *running, *parked, *waiting})
    )


def _waiting_queues(connection: Connection) -> Iterator[str]:
    """Yield the queues in which runs wait, from one to the next in the index of claims."""
    last = ""
    while True:
        found = connection.execute(
            select(runs.c.queue).where(*_READY_INDEX, runs.c.queue > last).order_by(runs.c.queue).limit(1)
        ).scalar_one_or_none()
        if found is None:
            return
        yield found
        last = found


def _waiting(connection: Connection, queue: str, now: datetime) -> tuple[Count, Count, datetime | None]:
    some = (
        select(runs.c.available_at.label("at"))
        .where(*_READY_INDEX, runs.c.queue == queue)
        .limit(COUNTED_TO + 1)
        .subquery()
    )
    is_ready = some.c.at <= now
    ready, later, oldest = connection.execute(
        select(
            func.sum(case((is_ready, 1), else_=0)),
            func.sum(case((is_ready, 0), else_=1)),
            func.min(case((is_ready, some.c.at), else_=None), type_=some.c.at.type),
        )
    ).one()
    is_more = (ready or 0) + (later or 0) > COUNTED_TO
    return Count(ready or 0, is_more and bool(ready)), Count(later or 0, is_more and bool(later)), oldest


def _by_queue(connection: Connection, condition: ColumnElement[bool]) -> dict[str, int]:
    some = select(runs.c.queue).where(condition).limit(COUNTED_TO + 1).subquery()
    statement = select(some.c.queue, func.count()).group_by(some.c.queue)
    return {row[0]: row[1] for row in connection.execute(statement)}


def _bounded(number: int) -> Count:
    return Count(min(number, COUNTED_TO), number > COUNTED_TO)
