"""How long batchd remembers: finished runs by age and by count per job, notices, and daemons that are gone.

Kept always: unfinished runs, the newest run of each job, and the runs of a fan-out until all of them are final: they
are what keeps a row from getting a second run. A run's attempts and log lines go with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, func, or_, select

from batchd.db.engine import Database
from batchd.domain.run import UNFINISHED
from batchd.store import listeners
from batchd.store.schema import fan_outs, runs, workers

CHUNK = 1_000

_KEEP_WORKERS = timedelta(days=1)
_UNFINISHED = [state.value for state in sorted(UNFINISHED)]


@dataclass(frozen=True, slots=True)
class Retention:
    """Finished runs go when they are older than `keep_for` or not among their job's newest `keep_runs`.

    None means no such limit. Notices go after `keep_events`; what a listener has not had yet, after `keep_unread`.
    """

    keep_runs: int | None
    keep_for: timedelta | None
    keep_events: timedelta
    keep_unread: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows went; `is_partial` when a chunk was full, so that there may be more.

    `unread` counts the notices that went before these listeners had them.
    """

    runs: int
    events: int
    workers: int
    unread: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All together."""
        return self.runs + self.events + self.workers

    @property
    def is_partial(self) -> bool:
        """Whether another turn may find more."""
        return max(self.runs, self.events, self.workers) >= CHUNK


def prune(database: Database, retention: Retention) -> Pruned:
    """Remove at most CHUNK rows of each sort in one transaction, by the database's clock, the oldest first."""
    with database.writing() as connection:
        events, unread = listeners.prune_outbox(connection, database, retention.keep_events, retention.keep_unread)
        return Pruned(
            runs=_prune_runs(connection, database, retention),
            events=events,
            unread=unread,
            workers=_prune(
                connection, workers, select(workers.c.id).where(workers.c.heartbeat_at < _ago(database, _KEEP_WORKERS))
            ),
        )


def _prune_runs(connection: Connection, database: Database, retention: Retention) -> int:
    ranked = select(
        runs.c.id,
        runs.c.state,
        runs.c.finished_at,
        runs.c.parent_id,
        func.row_number().over(partition_by=runs.c.schedule_id, order_by=runs.c.id.desc()).label("newest"),
    ).subquery()
    too_old: list[ColumnElement[bool]] = []
    if retention.keep_runs is not None:
        too_old.append(ranked.c.newest > retention.keep_runs)
    if retention.keep_for is not None:
        too_old.append(ranked.c.finished_at < _ago(database, retention.keep_for))
    if not too_old:
        return 0
    is_open = fan_outs.c.done_at.is_(None)
    of_open = (
        select(fan_outs.c.run_id).where(is_open, fan_outs.c.run_id.in_([ranked.c.id, ranked.c.parent_id])).exists()
    )
    doomed = (
        select(ranked.c.id)
        .where(ranked.c.newest > 1, ranked.c.state.not_in(_UNFINISHED))
        .where(or_(*too_old), ~of_open)
        .order_by(ranked.c.id)
    )
    return _prune(connection, runs, doomed)


def _prune(connection: Connection, table: Table, doomed: Select[int] | Select[str]) -> int:
    ids = connection.execute(doomed.limit(CHUNK)).scalars().all()
    if ids:
        # Asked again: a `batchd retry` may have queued one of them in this very moment.
        still = [table.c.state.not_in(_UNFINISHED)] if table is runs else []
        connection.execute(delete(table).where(table.c.id.in_(ids), *still))
    return len(ids)


def _ago(database: Database, age: timedelta) -> ColumnElement[datetime]:
    return database.dialect.now_plus(-age.total_seconds())
