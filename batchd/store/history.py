"""How long batchd remembers: finished runs by age and by count per job, notices, and daemons that are gone.

Kept always: unfinished runs, the newest run of each job, and the runs of a fan-out until all of them are final: they
are what keeps a row from getting a second run. A run's attempts and log lines go with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, func, or_, select

from batchd.db.engine import Database
from batchd.domain.run import UNFINISHED, RunState
from batchd.store import listeners
from batchd.store.schema import fan_outs, rate_starts, runs, schedules, workers

CHUNK = 1_000

_KEEP_WORKERS = timedelta(days=1)
_FINAL = [state.value for state in RunState if state.is_final]
_UNFINISHED = [state.value for state in sorted(UNFINISHED)]
_LONGEST_KEPT_SECONDS = timedelta(days=36_500).total_seconds()


@dataclass(frozen=True, slots=True)
class Retention:
    """Finished runs go when they are older than `keep_for` or not among their job's newest `keep_runs`.

    None means no such limit. `keep` says by state how long, instead of `keep_for`; a job's own rule (column `keep` of
    its schedule) goes before both. Notices go after `keep_events`; what a listener has not had yet after `keep_unread`.
    """

    keep_runs: int | None
    keep_for: timedelta | None
    keep_events: timedelta
    keep_unread: timedelta = timedelta(days=7)
    keep: Mapping[str, timedelta] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows went; `is_partial` when a chunk was full, so that there may be more.

    `unread` counts the notices that went before these listeners had them, `starts` what counted in windows of rates.
    """

    runs: int
    events: int
    workers: int
    unread: Mapping[str, int] = field(default_factory=dict)
    starts: int = 0

    @property
    def rows(self) -> int:
        """All together that people may miss."""
        return self.runs + self.events + self.workers

    @property
    def is_partial(self) -> bool:
        """Whether another turn may find more."""
        return max(self.runs, self.events, self.workers, self.starts) >= CHUNK


def prune(database: Database, retention: Retention) -> Pruned:
    """Remove at most CHUNK rows of each sort in one transaction, by the database's clock, the oldest first."""
    with database.writing() as connection:
        over = select(rate_starts.c.id).where(rate_starts.c.counts_until < database.dialect.now())
        starts = _prune(connection, rate_starts, over)
        events, unread = listeners.prune_outbox(connection, database, retention.keep_events, retention.keep_unread)
        return Pruned(
            runs=_prune_runs(connection, database, retention),
            events=events,
            unread=unread,
            starts=starts,
            workers=_prune(
                connection, workers, select(workers.c.id).where(workers.c.heartbeat_at < _ago(database, _KEEP_WORKERS))
            ),
        )


def _prune_runs(connection: Connection, database: Database, retention: Retention) -> int:
    """Remove a chunk of runs, each query of it through an index: by age, then by count."""
    with_own = connection.execute(select(schedules.c.id, schedules.c.keep).where(schedules.c.keep.is_not(None)))
    own = {row.id: _own_rule(row.keep) for row in with_own}
    age = retention.keep_for
    usual = {} if age is None else dict.fromkeys(_FINAL, age.total_seconds())
    usual |= {state: kept.total_seconds() for state, kept in retention.keep.items()}
    of_others = or_(runs.c.schedule_id.is_(None), runs.c.schedule_id.not_in(sorted(own)))
    doomed = [_too_old(database, usual, of_others)]
    doomed += [
        _too_old(database, usual | kept, runs.c.schedule_id == job)
        for job, kept in sorted(own.items())
        if kept is not None
    ]
    doomed += _too_many(connection, retention.keep_runs)
    removed = 0
    for which in doomed:
        if which is not None and removed < CHUNK:
            removed += _prune(connection, runs, which.where(~_is_needed()), CHUNK - removed)
    return removed


def _own_rule(keep: Any) -> dict[str, float] | None:
    """Return how many seconds a job keeps which state; None for a rule that somebody edited into nonsense.

    The runs of such a job stay: what to delete is no matter for guesses.
    """
    try:
        rule = {str(state): float(seconds) for state, seconds in keep.items()}
    except (AttributeError, TypeError, ValueError):
        return None
    return rule if all(0 <= seconds <= _LONGEST_KEPT_SECONDS for seconds in rule.values()) else None


def _too_old(database: Database, kept: Mapping[str, float], which: ColumnElement[bool]) -> Select[int] | None:
    """Return the runs that ended longer ago than their state is kept, in seconds, the oldest first."""
    if not kept:
        return None
    by_age: dict[float, list[str]] = {}
    for state, seconds in kept.items():
        by_age.setdefault(seconds, []).append(state)
    ended = [
        and_(runs.c.state.in_(sorted(states)), runs.c.finished_at < database.dialect.now_plus(-seconds))
        for seconds, states in by_age.items()
    ]
    youngest = database.dialect.now_plus(-min(by_age))
    return select(runs.c.id).where(which, runs.c.finished_at < youngest, or_(*ended)).order_by(runs.c.finished_at)


def _too_many(connection: Connection, most: int | None) -> list[Select[int]]:
    """Return for each job that has more runs than that those before its newest ones."""
    if most is None:
        return []
    each = runs.alias("each")
    last = select(each.c.id).order_by(each.c.id.desc()).offset(most - 1).limit(1)
    edges = connection.execute(
        select(schedules.c.id, last.where(each.c.schedule_id == schedules.c.id).scalar_subquery().label("edge"))
    ).all()
    no_job = connection.execute(last.where(each.c.schedule_id.is_(None))).scalar_one_or_none()
    before = [and_(runs.c.schedule_id == job, runs.c.id < edge) for job, edge in edges if edge is not None]
    if no_job is not None:
        before.append(and_(runs.c.schedule_id.is_(None), runs.c.id < no_job))
    return [select(runs.c.id).where(which, runs.c.state.not_in(_UNFINISHED)).order_by(runs.c.id) for which in before]


def _is_needed() -> ColumnElement[bool]:
    """Return whether a run is the newest of its job, or belongs to a fan-out that is not done."""
    newer = runs.alias("newer")
    newest_without = select(func.max(newer.c.id)).where(newer.c.schedule_id.is_(None)).scalar_subquery()
    has_newer = or_(
        and_(runs.c.schedule_id.is_(None), runs.c.id < newest_without),
        select(newer.c.id).where(newer.c.schedule_id == runs.c.schedule_id, newer.c.id > runs.c.id).exists(),
    )
    is_open = fan_outs.c.done_at.is_(None)
    of_open = select(fan_outs.c.run_id).where(is_open, fan_outs.c.run_id.in_([runs.c.id, runs.c.parent_id])).exists()
    return or_(~has_newer, of_open)


def _prune(connection: Connection, table: Table, doomed: Select[int] | Select[str], most: int = CHUNK) -> int:
    ids = connection.execute(doomed.limit(most)).scalars().all()
    if ids:
        # Asked again: a `batchd retry` may have queued one of them in this very moment.
        still = [table.c.state.not_in(_UNFINISHED)] if table is runs else []
        connection.execute(delete(table).where(table.c.id.in_(ids), *still))
    return len(ids)


def _ago(database: Database, age: timedelta) -> ColumnElement[datetime]:
    return database.dialect.now_plus(-age.total_seconds())
