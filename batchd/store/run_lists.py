"""Lists of runs for people, however long the ledger is: a page at a time by id, and counts that stop at a bound.

A page reads about as many rows as it shows. A list by state asks for each state by itself, so that each is read from
an index that holds it in order of ids, and takes the newest of what comes. A list by queue or tag looks a bounded
number of ids back. A period is turned into ids, since ids grow with time: no index on the time of queueing is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal_column, select, union_all

from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store.schema import EXCEPTIONAL_STATES, UNFINISHED_STATES, runs

COUNTED_TO = 10_000
"""Where counting stops: beyond it a number is of no use to a person."""

PAGE = 50

LOOKED_AT = 50_000
"""How many ids back a list by queue or by tag looks, for which there is no index; the next page looks further."""

_RARE = 10
"""How many times as far a list looks that is only of runs that did not succeed: few are."""

_LONGEST_ERROR = 400


@dataclass(frozen=True, slots=True)
class RunLine:
    """What a list shows of a run. `error` is the beginning of a text that a job wrote."""

    id: int
    schedule_id: str | None
    kind: str
    queue: str
    state: str
    reason: str | None
    scheduled_for: datetime | None
    scheduled_until: datetime | None
    fire_count: int
    created_at: datetime
    available_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    attempt: int
    max_attempts: int
    progress_done: int | None
    progress_total: int | None
    progress_note: str | None
    created_by: str
    error: str | None

    @property
    def job(self) -> str:
        """The job's name, or the kind's of a run without a job."""
        return self.schedule_id or self.kind

    @property
    def duration(self) -> timedelta | None:
        """How long the last attempt took; None when it never began or still runs."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(self.finished_at - self.started_at, timedelta(0))


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Which runs: of a job, in states, of a queue or parent, with a tag, queued since and until; those before an id.

    `from_id` and `end_id` are a period as ids, see `with_ids`.
    """

    job: str | None = None
    states: frozenset[RunState] = field(default_factory=frozenset)
    queue: str | None = None
    parent: int | None = None
    tag: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before_id: int | None = None
    from_id: int | None = None
    end_id: int | None = None


@dataclass(frozen=True, slots=True)
class RunPage:
    """Newest first; `next_before` is the id to go on before, None at the end.

    It may go on though there are fewer lines than a page has, or none: see `LOOKED_AT`.
    """

    lines: tuple[RunLine, ...]
    next_before: int | None


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are; `is_more` when counting stopped at the bound."""

    number: int
    is_more: bool = False

    def __str__(self) -> str:
        """Return it as people read it: "1,234", "10,000+"."""
        return f"{self.number:,}+" if self.is_more else f"{self.number:,}"


def with_ids(store: Database, wanted: ListFilter) -> ListFilter:
    """Return the filter with its period as ids, so that several questions do not look for them again."""
    if wanted.since is None and wanted.until is None:
        return wanted
    with store.reading() as connection:
        since = None if wanted.since is None else first_id_since(connection, wanted.since)
        until = None if wanted.until is None else first_id_since(connection, wanted.until)
    return replace(wanted, since=None, until=None, from_id=since, end_id=until)


def run_page(store: Database, wanted: ListFilter, *, limit: int = PAGE) -> RunPage:
    """Return the newest runs that the filter lets through."""
    wanted = with_ids(store, wanted)
    with store.reading() as connection:
        floor = _floor(connection, wanted)
        condition = _condition(store, wanted if floor is None else replace(wanted, from_id=floor))
        lines = newest_lines(connection, condition, wanted.states, limit + 1)
    more = len(lines) > limit
    shown = lines[:limit]
    return RunPage(shown, shown[-1].id if more else floor)


def count_runs(store: Database, wanted: ListFilter, *, most: int = COUNTED_TO) -> Count:
    """Return how many runs the filter lets through, or that there are more: than `most`, or than `LOOKED_AT` has."""
    wanted = with_ids(store, wanted)
    with store.reading() as connection:
        floor = _floor(connection, wanted)
        condition = _condition(store, wanted if floor is None else replace(wanted, from_id=floor))
        condition = _with_states(condition, wanted.states)
        if wanted.job is not None and wanted.states and all(state.is_final for state in wanted.states):
            condition = and_(condition, runs.c.finished_at.is_not(None))  # so it is, and an index of endings serves it
        found = counted(connection, condition, most)
        return found if floor is None else replace(found, is_more=True)


def newest_lines(
    connection: Connection, condition: ColumnElement[bool] | None, states: frozenset[RunState], limit: int
) -> tuple[RunLine, ...]:
    """Return the newest runs under the condition and in one of the states (any when there are none)."""
    return lines_of(connection, list(connection.scalars(newest_ids(condition, states, limit))))


def newest_ids(condition: ColumnElement[bool] | None, states: frozenset[RunState], limit: int) -> Select[Any]:
    """Return the question for the ids of the newest runs under the condition and in one of the states, if there are."""
    if not states:
        return _newest_ids(condition, limit)
    if len(states) == 1:
        return _newest_of_state(condition, next(iter(states)), limit)
    each = [_newest_of_state(condition, state, limit).subquery() for state in sorted(states)]
    together = union_all(*(select(part.c.id) for part in each)).subquery()
    return select(together.c.id).order_by(together.c.id.desc()).limit(limit)


def lines_of(connection: Connection, ids: Sequence[int]) -> tuple[RunLine, ...]:
    """Return these runs in this order."""
    if not ids:
        return ()
    names = [each.name for each in dataclasses.fields(RunLine)]
    columns = [runs.c[name] if name != "error" else _short_error() for name in names]
    rows = connection.execute(select(*columns).where(runs.c.id.in_(ids))).mappings()
    found = {row["id"]: RunLine(**row) for row in rows}
    return tuple(found[run_id] for run_id in ids if run_id in found)


def counted(connection: Connection, condition: ColumnElement[bool], most: int = COUNTED_TO) -> Count:
    """Return how many runs meet the condition, counting no further than `most`."""
    some = select(runs.c.id).where(condition).limit(most + 1).subquery()
    number = int(connection.execute(select(func.count()).select_from(some)).scalar_one())
    return Count(min(number, most), number > most)


def first_id_since(connection: Connection, moment: datetime) -> int:
    """Return the lowest id of a run that was queued at the moment or later, by halving: some thirty looks at the key.

    Ids are given out as runs are queued, so this is exact to within the length of a transaction.
    """
    # Two statements: SQLite takes each from an end of the key, but scans the table for both at once.
    low = connection.execute(select(func.min(runs.c.id))).scalar_one() or 0
    high = (connection.execute(select(func.max(runs.c.id))).scalar_one() or 0) + 1
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(
            select(runs.c.id, runs.c.created_at).where(runs.c.id >= middle).order_by(runs.c.id).limit(1)
        ).one_or_none()
        if found is None or found.created_at >= moment:
            high = middle
        else:
            low = found.id + 1
    return low


def _floor(connection: Connection, wanted: ListFilter) -> int | None:
    """Return the id at which a list that no index serves stops looking; None when it need not, or nothing is below."""
    is_served = wanted.job is not None or wanted.parent is not None
    is_few = bool(wanted.states) and wanted.states <= set(UNFINISHED_STATES)
    if is_served or is_few or (wanted.queue is None and wanted.tag is None):
        return None
    tops = [top for top in (wanted.before_id, wanted.end_id) if top is not None]
    top = min(tops) if tops else (connection.scalar(select(func.max(runs.c.id))) or 0) + 1
    is_rare = bool(wanted.states) and wanted.states <= set(EXCEPTIONAL_STATES)
    floor = top - LOOKED_AT * (_RARE if is_rare else 1)
    lowest = max(wanted.from_id or 0, connection.scalar(select(func.min(runs.c.id))) or 0)
    return floor if floor > lowest else None


def _condition(store: Database, wanted: ListFilter) -> ColumnElement[bool] | None:
    found: list[ColumnElement[bool]] = []
    if wanted.job is not None:
        found.append(runs.c.schedule_id == wanted.job)
    if wanted.queue is not None:
        found.append(runs.c.queue == wanted.queue)
    if wanted.parent is not None:
        found.append(runs.c.parent_id == wanted.parent)
    if wanted.tag is not None:
        found.append(store.dialect.json_list_has(runs.c.tags, wanted.tag))
    if wanted.from_id is not None:
        found.append(runs.c.id >= wanted.from_id)
    if wanted.end_id is not None:
        found.append(runs.c.id < wanted.end_id)
    if wanted.before_id is not None:
        found.append(runs.c.id < wanted.before_id)
    return and_(*found) if found else None


def _with_states(condition: ColumnElement[bool] | None, states: frozenset[RunState]) -> ColumnElement[bool]:
    if not states:
        return runs.c.id.is_not(None) if condition is None else condition
    in_states = in_state(next(iter(states))) if len(states) == 1 else _in_one_of(states)
    return in_states if condition is None else and_(condition, in_states)


def _in_one_of(states: frozenset[RunState]) -> ColumnElement[bool]:
    among = _among(sorted(states))
    return and_(among, _among(EXCEPTIONAL_STATES)) if states <= set(EXCEPTIONAL_STATES) else among


def in_state(state: RunState) -> ColumnElement[bool]:
    """Return the condition that a run is in the state, written so that a partial index serves it on every database.

    The words stand in the statement itself: with parameters PostgreSQL's generic plan could not know that the index
    fits. And SQLite sees that it does only where the index's own condition stands in the statement as well.
    """
    exactly = runs.c.state == literal_column(f"'{state.value}'")
    if state is RunState.QUEUED:
        return and_(exactly, _among(UNFINISHED_STATES))
    return and_(exactly, _among(EXCEPTIONAL_STATES)) if state.value in EXCEPTIONAL_STATES else exactly


def _among(states: Sequence[str]) -> ColumnElement[bool]:
    return runs.c.state.in_([literal_column(f"'{state}'") for state in states])


def _newest_of_state(condition: ColumnElement[bool] | None, state: RunState, limit: int) -> Select[Any]:
    wanted = _with_states(condition, frozenset({state}))
    if state.is_final:
        return _newest_ids(wanted, limit)
    # Few runs are unfinished, anywhere in the ledger: sort them, and do not walk down all ids to find them.
    return select(runs.c.id).where(wanted).order_by((runs.c.id + 0).desc()).limit(limit)


def _newest_ids(condition: ColumnElement[bool] | None, limit: int) -> Select[Any]:
    statement = select(runs.c.id).order_by(runs.c.id.desc()).limit(limit)
    return statement if condition is None else statement.where(condition)


def _short_error() -> ColumnElement[Any]:
    return func.substr(runs.c.error, 1, _LONGEST_ERROR).label("error")
