"""Which rows a chunked delete means, and which way it takes through the table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, Table, and_, false, true

from batchd.db.bulk import ColumnWalk, KeyWalk, Walk
from batchd.db.catalogue import TableFacts, find_table
from batchd.db.estimate import check_predicate, estimated_matches
from batchd.db.keys import carrier_of
from batchd.db.time_column import TimeFormat, before, format_of
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.looks import index_advice

BY_COLUMN: Final = "column_windows"
BY_KEY: Final = "key_windows"
NOTHING: Final = "nothing_to_do"

_ORDERED = 0.5
"""From this correlation on, rows that follow each other in the index also lie near each other in the table."""


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """`predicate` is the whole of what may go; `walk` is None when the column holds nothing at all."""

    facts: TableFacts
    table: Table
    column: str
    format_name: str | None
    cutoff: datetime
    predicate: ColumnElement[bool]
    walk: Walk | None
    method: str
    is_indexed: bool
    estimate: int | None


def plan_delete(
    connection: Connection,
    *,
    table: str,
    column: str,
    where: str | None,
    unit: TimeFormat | None,
    zone: ZoneInfo,
    cutoff: datetime,
    resumed: JsonObject | None,
) -> DeletePlan:
    """Return the plan; a resumed run keeps the format and the way of its checkpoint. Raises JobError with advice."""
    facts = find_table(connection, table)
    core = facts.as_table()
    chosen = facts.column_named(column)
    further = true() if where is None else check_predicate(connection, facts, core, where)
    is_indexed = facts.is_indexed(chosen.name)
    if resumed is not None:
        stored: TimeFormat | None = TimeFormat(str(resumed["format"]))
    else:
        stored = format_of(connection, facts, chosen, unit)
    if stored is None:
        return DeletePlan(facts, core, chosen.name, None, cutoff, false(), None, NOTHING, is_indexed, 0)
    bounds = before(core, chosen.name, stored, cutoff, zone)
    carrier = carrier_of(facts, core, chosen.name)
    floor = true() if bounds.floor is None else carrier.expression >= carrier.bind(bounds.floor)
    predicate = and_(floor, carrier.expression < carrier.bind(bounds.upper), bounds.guard, further)
    estimate = estimated_matches(connection, facts, core, chosen.name, bounds, further)
    method = str(resumed["method"]) if resumed is not None else _method(facts, chosen.name, is_indexed=is_indexed)
    walk: Walk = ColumnWalk(facts, core, chosen.name, bounds) if method == BY_COLUMN else KeyWalk(facts, core)
    return DeletePlan(facts, core, chosen.name, stored.value, cutoff, predicate, walk, method, is_indexed, estimate)


def _method(facts: TableFacts, column: str, *, is_indexed: bool) -> str:
    if not facts.key:
        if is_indexed:
            return BY_COLUMN
        raise JobError(
            f"table {facts.written} has neither a primary key nor an index on {column}",
            hint=f"create one: {index_advice(facts, (column,)).removesuffix(';')}",
            retryable=False,
        )
    if not is_indexed:
        return BY_KEY
    by_column = abs(facts.correlation.get(column, 1.0))
    by_key = abs(facts.correlation.get(facts.key[0], 0.0))
    return BY_KEY if by_column < _ORDERED <= by_key else BY_COLUMN
