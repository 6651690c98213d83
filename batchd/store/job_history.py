"""A job's past, for charts: its days, how long its runs took, how much they did, and its last hours.

All but the amounts come from the index `batchd_runs_ended` alone, which holds a job's endings in order of time, so that
a chart costs the same whether the ledger has a thousand runs or five million. What it reads is bounded by a number of
runs as well as by a time: a job that runs every second has a short past here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Float, Integer, and_, cast, column, func, literal, select, values

from batchd.db.engine import Database
from batchd.db.types import UtcTimestamp
from batchd.domain.run import RunState
from batchd.store.digest import COUNTED
from batchd.store.schema import runs

MOST_RUNS = 5_000
"""How many of a job's newest endings a chart looks at."""

MOST_RESULTS = 500
"""How many of a job's newest results are read; they are not in an index."""

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


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


def parts_of(store: Database, job: str, edges: Sequence[datetime], *, durations: bool = True) -> tuple[Part, ...]:
    """Return what became of the job's runs between each two edges, by when they ended; the edges ascend."""
    with store.reading() as connection:
        first = max(edges[0], _reach(connection, job))
        counts = _counts(connection, job, edges, first)
        took = _durations(connection, store, job, edges, first) if durations else {}
    return tuple(
        Part(start, end, counts.get(place, {}), *took.get(place, (None, None)))
        for place, (start, end) in enumerate(itertools.pairwise(edges))
    )


def amounts_of(store: Database, job: str, kind: str, since: datetime) -> tuple[Amounts, ...]:
    """Return how many rows the job's newest runs since then processed, oldest first.

    Runs that said nothing are left out. Sums of the result's own numbers for the kinds that are known to count rows,
    else how far the run's progress came.
    """
    keys = COUNTED.get(kind, ())
    numbers = [store.dialect.json_number(runs.c.result, key).label(f"n_{key}") for key in keys]
    newest = select(runs.c.id).where(runs.c.schedule_id == job).order_by(runs.c.id.desc()).limit(MOST_RESULTS)
    statement = select(runs.c.id, runs.c.finished_at, runs.c.progress_done, *numbers).where(
        runs.c.finished_at >= since, runs.c.started_at.is_not(None)
    )
    found = []
    with store.reading() as connection:
        ids = connection.scalars(newest).all()
        for row in connection.execute(statement.where(runs.c.id.in_(ids))).mappings():
            said = {key: round(row[f"n_{key}"]) for key in keys if row[f"n_{key}"] is not None}
            if not said and row["progress_done"] is not None:
                said = {"processed": row["progress_done"]}
            if said:
                found.append(Amounts(row["id"], row["finished_at"], said))
    return tuple(sorted(found, key=lambda each: (each.finished_at, each.run_id)))


def strips_of(
    connection: Connection, store: Database, jobs: Sequence[str], start: datetime, length: timedelta, count: int
) -> tuple[Strip, ...]:
    """Return for each job what ended in `count` parts of that length from `start` on, at most `MOST_RUNS` of each."""
    if not jobs:
        return ()
    end = start + length * count
    named = values(column("job", runs.c.schedule_id.type), name="named").data([(job,) for job in jobs]).cte()
    seconds = store.dialect.seconds_between(literal(start, UtcTimestamp()), runs.c.finished_at)
    place = cast(func.floor(seconds / length.total_seconds()), Integer).label("place")
    statement = (
        select(named.c.job, place, runs.c.state, func.count().label("count"))
        .join(runs, and_(runs.c.schedule_id == named.c.job, runs.c.finished_at >= start, runs.c.finished_at < end))
        .group_by(named.c.job, place, runs.c.state)
    )
    parts: dict[str, list[dict[str, int]]] = {job: [{} for _ in range(count)] for job in jobs}
    for job, index, state, number in connection.execute(statement):
        parts[job][min(max(index, 0), count - 1)][state] = number
    return tuple(Strip(job, tuple(parts[job])) for job in jobs)


def _reach(connection: Connection, job: str) -> datetime:
    """Return since when the job's newest `MOST_RUNS` endings are; long ago when it has fewer."""
    oldest = (
        select(runs.c.finished_at)
        .where(runs.c.schedule_id == job, runs.c.finished_at.is_not(None))
        .order_by(runs.c.finished_at.desc())
        .offset(MOST_RUNS - 1)
        .limit(1)
    )
    found = connection.execute(oldest).scalar_one_or_none()
    return found or _LONG_AGO


def _counts(connection: Connection, job: str, edges: Sequence[datetime], first: datetime) -> dict[int, dict[str, int]]:
    spans = _spans(edges, first)
    statement = (
        select(spans.c.place, runs.c.state, func.count())
        .join(runs, _ended_within(job, spans))
        .group_by(spans.c.place, runs.c.state)
    )
    found: dict[int, dict[str, int]] = {}
    for place, state, number in connection.execute(statement):
        found.setdefault(place, {})[state] = number
    return found


def _durations(
    connection: Connection, store: Database, job: str, edges: Sequence[datetime], first: datetime
) -> dict[int, tuple[timedelta, timedelta]]:
    """Return the median and the 95th percentile of each part, by nearest rank: the same on every database."""
    spans = _spans(edges, first)
    took = store.dialect.seconds_between(runs.c.started_at, runs.c.finished_at)
    ran = [RunState.SUCCEEDED.value, RunState.FAILED.value]
    ranked = (
        select(
            spans.c.place.label("place"),
            took.label("took"),
            func.row_number().over(partition_by=spans.c.place, order_by=took).label("rank"),
            func.count().over(partition_by=spans.c.place).label("of"),
        )
        .join(runs, _ended_within(job, spans))
        .where(runs.c.state.in_(ran), runs.c.started_at.is_not(None))
        .subquery()
    )
    # The nearest rank of a share p of n values is the smallest k with k >= p * n.
    chosen = [
        func.min(ranked.c.took).filter(ranked.c.rank >= ranked.c.of * literal(share, Float)) for share in (0.5, 0.95)
    ]
    statement = select(ranked.c.place, *chosen).group_by(ranked.c.place)
    return {
        place: (timedelta(seconds=max(0.0, median)), timedelta(seconds=max(0.0, high)))
        for place, median, high in connection.execute(statement)
    }


def _spans(edges: Sequence[datetime], first: datetime) -> Any:
    """Return the parts as a table, each joined to its runs by a range of the index."""
    rows = [
        (place, max(start, first), end) for place, (start, end) in enumerate(itertools.pairwise(edges)) if end > first
    ]
    listed = values(
        column("place", Integer()), column("start", UtcTimestamp()), column("until", UtcTimestamp()), name="spans"
    )
    return listed.data(rows or [(0, first, first)]).cte()


def _ended_within(job: str, spans: Any) -> Any:
    return and_(runs.c.schedule_id == job, runs.c.finished_at >= spans.c.start, runs.c.finished_at < spans.c.until)
