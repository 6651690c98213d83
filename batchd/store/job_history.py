"""A job's past, for charts: its days, how long its runs took, how much they did, and its last hours.

All but the amounts come from the index `batchd_runs_ended` alone, which holds a job's endings in order of time, so that
a chart costs the same whether the ledger has a thousand runs or five million. What it reads is bounded by a number of
runs as well as by a time: a job that runs every second has a short past here.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Float, Integer, Row, Subquery, and_, cast, func, literal, select

from batchd.db.engine import Database
from batchd.db.types import UtcTimestamp
from batchd.domain.run import RunState
from batchd.store.digest import COUNTED
from batchd.store.schema import runs, schedules

MOST_RUNS = 5_000
"""How many of a job's newest endings a chart looks at."""

MOST_RESULTS = 500
"""How many of a job's newest results are read; they are not in an index."""

MOST_IN_STRIP = 2_000
"""How many of a job's newest endings its strip shows: those of a day, even of a job that runs each minute."""

_ROUNDING = 0.0005
"""SQLite's moments are exact to the millisecond; one at the beginning of a part must not fall into the part before."""


@dataclass(frozen=True, slots=True)
class Part:
    """What ended in a part of a period: runs by state, and how long those that ran took.

    `median` and `p95` are of runs that succeeded or failed, by nearest rank; None when there was none.
    """

    start: datetime
    end: datetime
    states: Mapping[str, int] = field(default_factory=dict)
    median: timedelta | None = None
    p95: timedelta | None = None

    @property
    def total(self) -> int:
        """How many runs ended."""
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Amounts:
    """Rows that one run processed, by what was done with them ("rows_deleted", "added")."""

    run_id: int
    finished_at: datetime
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Strip:
    """A job's last hours, in parts of one length: the number of runs by state in each."""

    job: str
    parts: tuple[Mapping[str, int], ...]


def parts_of(store: Database, job: str, edges: Sequence[datetime]) -> tuple[Part, ...]:
    """Return what became of the job's runs between each two edges, by when they ended; edges ascend in equal steps."""
    step = (edges[1] - edges[0]).total_seconds()
    ended = _newest_endings(store, job, edges, step)
    ran = ended.c.state.in_([RunState.SUCCEEDED.value, RunState.FAILED.value]) & ended.c.took.is_not(None)
    alike = (ended.c.place, ran)
    ranked = select(
        ended,
        ran.label("ran"),
        func.row_number().over(partition_by=alike, order_by=ended.c.took).label("rank"),
        func.count().over(partition_by=alike).label("of"),
    ).subquery()
    # The nearest rank of a share p of n values is the smallest k with k >= p * n: the same on every database.
    median, p95 = (
        func.min(ranked.c.took).filter(ranked.c.ran, ranked.c.rank >= ranked.c.of * literal(share, Float))
        for share in (0.5, 0.95)
    )
    columns = (ranked.c.place, ranked.c.state, func.count().label("runs"), median.label("median"), p95.label("p95"))
    statement = select(*columns).group_by(ranked.c.place, ranked.c.state)
    found: dict[int, list[Row[Any]]] = {}
    with store.reading() as connection:
        for row in connection.execute(statement):
            found.setdefault(row.place, []).append(row)
    return tuple(
        _part(start, end, found.get(place, [])) for place, (start, end) in enumerate(itertools.pairwise(edges))
    )


def days_of(store: Database, job: str, edges: Sequence[datetime]) -> tuple[Part, ...]:
    """Return as `parts_of` does, but without durations, and the steps need not be equal: days of 23 or 25 hours.

    The database counts in steps that divide all of them.
    """
    moments = [edge.astimezone(UTC) for edge in edges]  # the difference of two moments in one zone is that of clocks
    step = math.gcd(*(round((end - start).total_seconds()) for start, end in itertools.pairwise(moments)))
    ended = _newest_endings(store, job, moments, step)
    statement = select(ended.c.place, ended.c.state, func.count()).group_by(ended.c.place, ended.c.state)
    firsts = [round((moment - moments[0]).total_seconds()) // step for moment in moments]
    states = [Counter[str]() for _ in firsts]
    with store.reading() as connection:
        for place, state, number in connection.execute(statement):
            states[bisect_right(firsts, place) - 1][state] += number
    return tuple(Part(start, end, dict(states[place])) for place, (start, end) in enumerate(itertools.pairwise(edges)))


def amounts_of(store: Database, job: str, kind: str, since: datetime) -> tuple[Amounts, ...]:
    """Return how many rows the job's newest runs since then processed, oldest first.

    Runs that said nothing are left out. Sums of the result's own numbers for the kinds that are known to count rows,
    else how far the run's progress came.
    """
    keys = COUNTED.get(kind, ())
    numbers = [store.dialect.json_number(runs.c.result, key).label(f"n_{key}") for key in keys]
    statement = (
        select(runs.c.id, runs.c.finished_at, runs.c.started_at, runs.c.progress_done, *numbers)
        .where(runs.c.schedule_id == job, runs.c.finished_at >= since)
        .order_by(runs.c.finished_at.desc())
        .limit(MOST_RESULTS)
    )
    found = []
    with store.reading() as connection:
        for row in connection.execute(statement).mappings():
            if row["started_at"] is None:
                continue
            said = {key: round(row[f"n_{key}"]) for key in keys if row[f"n_{key}"] is not None}
            if not said and row["progress_done"] is not None:
                said = {"processed": row["progress_done"]}
            if said:
                found.append(Amounts(row["id"], row["finished_at"], said))
    return tuple(sorted(found, key=lambda each: (each.finished_at, each.run_id)))


def strips_of(
    connection: Connection, store: Database, jobs: Sequence[str], start: datetime, length: timedelta, count: int
) -> tuple[Strip, ...]:
    """Return for each job what ended in `count` parts of that length from `start` on, `MOST_IN_STRIP` of each."""
    if not jobs:
        return ()
    since = (
        select(runs.c.finished_at)
        .where(runs.c.schedule_id == schedules.c.id, runs.c.finished_at >= start)
        .order_by(runs.c.finished_at.desc())
        .offset(MOST_IN_STRIP - 1)
        .limit(1)
        .scalar_subquery()
    )
    named = (
        select(schedules.c.id.label("job"), func.coalesce(since, literal(start, UtcTimestamp())).label("since"))
        .where(schedules.c.id.in_(jobs))
        .cte()
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    place = _place(store, start, length.total_seconds()).label("place")
    statement = (
        select(named.c.job, place, runs.c.state, func.count().label("count"))
        .join(runs, and_(runs.c.schedule_id == named.c.job, runs.c.finished_at >= named.c.since))
        .group_by(named.c.job, place, runs.c.state)
    )
    parts: dict[str, list[dict[str, int]]] = {job: [{} for _ in range(count)] for job in jobs}
    for job, index, state, number in connection.execute(statement):
        states = parts[job][min(max(index, 0), count - 1)]
        states[state] = states.get(state, 0) + number
    return tuple(Strip(job, tuple(parts[job])) for job in jobs)


def _newest_endings(store: Database, job: str, edges: Sequence[datetime], step: float) -> Subquery:
    """Return the job's newest endings between the edges as a table: in which step from the first, state, seconds."""
    return (
        select(
            _place(store, edges[0], step).label("place"),
            runs.c.state,
            store.dialect.seconds_between(runs.c.started_at, runs.c.finished_at).label("took"),
        )
        .where(runs.c.schedule_id == job, runs.c.finished_at >= edges[0], runs.c.finished_at < edges[-1])
        .order_by(runs.c.finished_at.desc())
        .limit(MOST_RUNS)
        .subquery()
    )


def _place(store: Database, start: datetime, step: float) -> ColumnElement[int]:
    """Return in which of the steps from `start` on a run ended."""
    seconds = store.dialect.seconds_between(literal(start, UtcTimestamp()), runs.c.finished_at)
    return cast(func.floor((seconds + _ROUNDING) / step), Integer)


def _part(start: datetime, end: datetime, found: Sequence[Row[Any]]) -> Part:
    """Return a part of what each state has in it: its runs, and the shortest at the rank or above."""
    medians = [row.median for row in found if row.median is not None]
    highs = [row.p95 for row in found if row.p95 is not None]
    return Part(start, end, {row.state: row.runs for row in found}, _shortest(medians), _shortest(highs))


def _shortest(seconds: Sequence[float]) -> timedelta | None:
    return timedelta(milliseconds=max(0, round(1000 * min(seconds)))) if seconds else None
