"""Reads a store after a storm and says what is wrong with it: an empty list means that every promise was kept."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome
from batchd.domain.run import RunState
from batchd.store.schema import attempts, runs


@dataclass(frozen=True)
class Fire:
    """A row of the ledger that stands for one fire time, or for a range of missed ones."""

    run_id: int
    schedule: str
    first: datetime
    last: datetime
    count: int
    state: RunState


@dataclass(frozen=True)
class Try:
    """An attempt."""

    run_id: int
    fence: int
    started: datetime
    finished: datetime | None
    outcome: AttemptOutcome | None


def read_fires(store: Database) -> list[Fire]:
    """Return every run that a schedule made, in the order of their fire times."""
    columns = (runs.c.id, runs.c.schedule_id, runs.c.scheduled_for, runs.c.scheduled_until, runs.c.fire_count)
    with store.reading() as connection:
        rows = connection.execute(
            select(*columns, runs.c.state)
            .where(runs.c.scheduled_for.is_not(None))
            .order_by(runs.c.schedule_id, runs.c.scheduled_for)
        ).all()
    return [
        Fire(
            row.id,
            row.schedule_id,
            row.scheduled_for,
            row.scheduled_until or row.scheduled_for,
            row.fire_count,
            RunState(row.state),
        )
        for row in rows
    ]


def read_tries(store: Database) -> list[Try]:
    """Return every attempt."""
    with store.reading() as connection:
        rows = connection.execute(select(attempts).order_by(attempts.c.run_id, attempts.c.fence)).all()
    return [
        Try(row.run_id, row.fence, row.started_at, row.finished_at, row.outcome and AttemptOutcome(row.outcome))
        for row in rows
    ]


def fire_problems(fires: Iterable[Fire], *, every: timedelta, until: datetime) -> list[str]:
    """Return what is wrong with the fires of schedules that fire at that interval.

    From a schedule's first fire to its last there is exactly one row for each fire time, and every row whose fire time
    is not after `until` is final.
    """
    problems = []
    by_schedule: dict[str, list[Fire]] = defaultdict(list)
    for fire in fires:
        by_schedule[fire.schedule].append(fire)
    for schedule, rows in by_schedule.items():
        rows.sort(key=lambda fire: fire.first)
        problems += [
            f"{schedule}: {fire.first} is {fire.state} (run {fire.run_id})"
            for fire in rows
            if fire.first <= until and not fire.state.is_final
        ]
        problems += [
            f"{schedule}: the {fire.state} row of {fire.first} to {fire.last} counts {fire.count} fires"
            for fire in rows
            if fire.last - fire.first != (fire.count - 1) * every
        ]
        for before, after in itertools.pairwise(rows):
            gap = after.first - before.last
            if gap > every:
                problems.append(f"{schedule}: nothing between {before.last} and {after.first}: {gap / every - 1} lost")
            elif gap < every:
                problems.append(f"{schedule}: {after.first} is there twice")
        if rows[-1].last < until - 2 * every:
            problems.append(f"{schedule}: nothing after {rows[-1].last}")
    return problems


def try_problems(tries: Iterable[Try], succeeded: frozenset[int]) -> list[str]:
    """Return what is wrong with the attempts: a run succeeds exactly once, and ends before it begins again."""
    problems = []
    by_run: dict[int, list[Try]] = defaultdict(list)
    for attempt in tries:
        by_run[attempt.run_id].append(attempt)
    for run_id, rows in by_run.items():
        rows.sort(key=lambda attempt: attempt.fence)
        wins = sum(attempt.outcome is AttemptOutcome.SUCCEEDED for attempt in rows)
        if wins != (run_id in succeeded):
            problems.append(f"run {run_id}: {wins} succeeded attempts")
        problems += _overlaps(run_id, rows)
    problems += [f"run {run_id} succeeded without an attempt" for run_id in succeeded - by_run.keys()]
    return problems


def _overlaps(run_id: int, rows: Sequence[Try]) -> list[str]:
    return [
        f"run {run_id}: attempt {after.fence} began while {before.fence} was at work"
        for before, after in itertools.pairwise(rows)
        if before.finished is None or before.finished > after.started
    ]
