"""Everything that happens, as one ordered feed: state changes, runs' log lines, and how far running runs are.

State changes come from the outbox and log lines from their table; both are read up to their horizons only, so that no
row appears later behind a place that was passed (`batchd.store.horizon`). Progress is read as it stands.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Table, func, select

from batchd.db.engine import Database
from batchd.domain.position import Position
from batchd.domain.run import RunState
from batchd.store.horizon import Horizon
from batchd.store.schema import log_lines, outbox, runs

_OF_RUN = ("kind", "queue", "progress_done", "progress_total", "progress_note")


class Sort(enum.StrEnum):
    """What sort of thing happened."""

    STATE = "state"
    LOG = "log"
    PROGRESS = "progress"


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened. `id` is its row's, 0 for progress; `event` its name; `done` None: no progress known."""

    sort: Sort
    id: int
    at: datetime
    event: str
    run_id: int | None
    job: str | None
    kind: str | None
    queue: str | None
    facts: Mapping[str, Any]
    done: int | None = None
    total: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A happening and the place behind it."""

    happening: Happening
    position: Position


@dataclass(frozen=True, slots=True)
class Page:
    """What was found, in order, and how far that is: everything up to `reached` is among it or was not wanted."""

    found: tuple[Placed, ...]
    reached: Position


class FeedHorizon:
    """Finds out up to which place everything that will ever be there can be seen. For one thread."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._changes = Horizon(outbox, store.dialect)
        self._lines = Horizon(log_lines, store.dialect)
        self._first: Position | None = None

    def look(self, known: Position) -> Position:
        """Return the place that the feed may be read up to, at least `known`. One short transaction."""
        with self._store.reading() as connection:
            self._changes.look(connection, known=known.changes)
            self._lines.look(connection, known=known.lines)
        return Position(max(known.changes, self._changes.settled), max(known.lines, self._lines.settled))

    def start(self) -> Position | None:
        """Return a place to begin at: now, or a moment ago. None while transactions are open; then ask again soon."""
        with self._store.reading() as connection:
            newest = Position(self._changes.look(connection), self._lines.look(connection))
        self._first = self._first or newest
        settled = Position(self._changes.settled, self._lines.settled)
        return None if settled.is_behind(self._first) else settled


def between(
    connection: Connection,
    after: Position,
    up_to: Position,
    limit: int,
    *,
    run_id: int | None = None,
) -> Page:
    """Return what lies between the places, of one run or of all: state changes and log lines merged by time.

    At most `limit` of each are read; when there are more, `reached` is where to go on. `up_to` must not lie beyond the
    horizon.
    """
    changes = _changes(connection, after.changes, up_to.changes, limit, run_id)
    lines = _lines(connection, after.lines, up_to.lines, limit, run_id)
    return merged(changes, lines, after, up_to, limit)


def merged(
    changes: Sequence[Happening], lines: Sequence[Happening], after: Position, up_to: Position, limit: int
) -> Page:
    """Merge both by time, each in the order of its ids; stop where a full list ends, since more may lie behind it."""
    found: list[Placed] = []
    change_at = line_at = 0
    position = after
    while change_at < len(changes) or line_at < len(lines):
        if (change_at == limit <= len(changes)) or (line_at == limit <= len(lines)):
            break
        is_change = line_at >= len(lines) or (change_at < len(changes) and changes[change_at].at <= lines[line_at].at)
        if is_change:
            happening = changes[change_at]
            change_at += 1
            position = Position(happening.id, position.lines)
        else:
            happening = lines[line_at]
            line_at += 1
            position = Position(position.changes, happening.id)
        found.append(Placed(happening, position))
    is_all = len(changes) < limit and len(lines) < limit
    return Page(tuple(found), up_to if is_all else position)


def running(connection: Connection, *, now: datetime) -> tuple[Happening, ...]:
    """Return how far each running run is that has said so."""
    columns = [runs.c[name] for name in ("id", "schedule_id", "attempt", "started_at", *_OF_RUN)]
    statement = select(*columns).where(runs.c.state == RunState.RUNNING.value, runs.c.progress_done.is_not(None))
    return tuple(
        Happening(
            sort=Sort.PROGRESS,
            id=0,
            at=now,
            event="run.progressed",
            run_id=row.id,
            job=row.schedule_id,
            kind=row.kind,
            queue=row.queue,
            facts={"attempt": row.attempt, "started_at": row.started_at},
            done=row.progress_done,
            total=row.progress_total,
            note=row.progress_note,
        )
        for row in connection.execute(statement)
    )


def oldest_change(connection: Connection) -> int | None:
    """Return the id of the oldest state change that is still there; None when there is none."""
    found: int | None = connection.execute(select(func.min(outbox.c.id))).scalar_one()
    return found


def _changes(connection: Connection, after: int, up_to: int, limit: int, run_id: int | None) -> tuple[Happening, ...]:
    if after >= up_to:
        return ()
    columns = [outbox.c[name] for name in ("id", "created_at", "event", "run_id", "schedule_id", "payload")]
    statement = _range(outbox, columns, after, up_to, limit, run_id, is_outer=True)
    return tuple(_change(row) for row in connection.execute(statement))


def _change(row: Any) -> Happening:
    said = row.payload if isinstance(row.payload, Mapping) else {}  # somebody may have edited the row
    return Happening(
        sort=Sort.STATE,
        id=row.id,
        at=row.created_at,
        event=row.event,
        run_id=row.run_id,
        job=row.schedule_id,
        kind=_text(said.get("kind")) or row.kind,
        queue=_text(said.get("queue")) or row.queue,
        facts=said,
        done=row.progress_done,
        total=row.progress_total,
        note=row.progress_note,
    )


def _lines(connection: Connection, after: int, up_to: int, limit: int, run_id: int | None) -> tuple[Happening, ...]:
    if after >= up_to:
        return ()
    columns = [log_lines.c[name] for name in ("id", "run_id", "at", "level", "event", "message", "fields")]
    statement = _range(log_lines, [*columns, runs.c.schedule_id], after, up_to, limit, run_id, is_outer=False)
    return tuple(
        Happening(
            sort=Sort.LOG,
            id=row.id,
            at=row.at,
            event=row.event,
            run_id=row.run_id,
            job=row.schedule_id,
            kind=row.kind,
            queue=row.queue,
            facts={"level": row.level, "message": row.message, "fields": row.fields},
        )
        for row in connection.execute(statement)
    )


def _range(
    table: Table, columns: Sequence[Any], after: int, up_to: int, limit: int, run_id: int | None, *, is_outer: bool
) -> Select[Any]:
    statement = (
        select(*columns, *(runs.c[name] for name in _OF_RUN))
        .join_from(table, runs, runs.c.id == table.c.run_id, isouter=is_outer)
        .where(table.c.id > after, table.c.id <= up_to)
        .order_by(table.c.id)
        .limit(limit)
    )
    return statement if run_id is None else statement.where(table.c.run_id == run_id)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
