"""Walking through a table in windows, so that a big change becomes many short transactions.

A window is a range of an index, looked up ahead: `ORDER BY column OFFSET n LIMIT 1` from the last boundary finds where
the next n rows end, and the statement then takes `column >= a AND column < b`. Nothing is ever scanned twice: a LIMIT
from the head of the index, or a list of ctids, rereads the rows that are already dead and collapses while an old
snapshot keeps them visible.

The look itself steps over the next n entries of the index, which takes a sixth of the time that deleting their rows
takes. Where rows lie evenly a window may be guessed instead, from how wide the last one was (`stride`).

`ColumnWalk` follows an index on the column itself. `KeyWalk` follows the primary key with the predicate as a filter:
for a column without an index, or one whose order has nothing to do with where its rows lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, Table, and_, select, true

from batchd.db.catalogue import TableFacts
from batchd.db.keys import Key, carrier_of, keys_of, read_key, stored_key
from batchd.db.time_column import Before, Carried, value_ahead
from batchd.domain.job import JsonObject


@dataclass(frozen=True, slots=True)
class Window:
    """A range of rows, and the position (small JSON, for a checkpoint) at which the walk goes on after it.

    `is_divisible` is False for a range that cannot be made smaller: equal values in a table without a key. `is_guess`:
    nobody has counted its rows.
    """

    condition: ColumnElement[bool]
    after: JsonObject
    is_divisible: bool = True
    is_guess: bool = False


class Walk(Protocol):
    """A way through a table. Holds no state: the position does."""

    def start(self, connection: Connection) -> JsonObject:
        """Return the position before the first window."""
        ...

    def next_window(self, connection: Connection, position: JsonObject, rows: int) -> Window | None:
        """Return the window of at most `rows` rows of the index at the position, or None at the end."""
        ...

    def stride(self, began: JsonObject, position: JsonObject, times: float) -> Window | None:
        """Return a window `times` as wide as that from `began`, an earlier position; None where it cannot be told.

        It may hold any number of rows, and there may be more after it.
        """
        ...


class ColumnWalk:
    """Windows of an index that starts with the column, from its smallest value up to the cutoff."""

    def __init__(self, facts: TableFacts, table: Table, column: str, before: Before) -> None:
        self._column = carrier_of(facts, table, column)
        self._keys = keys_of(facts, table)
        self._below = self._column.expression < self._column.bind(before.upper)
        self._floor = true() if before.floor is None else self._column.expression >= self._column.bind(before.floor)
        self._type = facts.type_of(column) if facts.dialect == "postgresql" else ""

    def start(self, connection: Connection) -> JsonObject:  # noqa: ARG002
        """Return the position before the smallest value."""
        return {}

    def next_window(self, connection: Connection, position: JsonObject, rows: int) -> Window | None:
        """Return the next values; equal values that are more than `rows` rows are split by the key."""
        if "within" in position:
            return self._part_of_tie(connection, _carried(position["from"]), read_key(position["within"]), rows)
        lower = self._first_value(connection, position)
        if lower is None:
            return None
        column = self._column.expression
        from_lower = and_(column >= self._column.bind(lower), self._below)
        # The conversion outside, or it would be done for each row that OFFSET steps over.
        ahead = select(column.label("value")).where(from_lower).order_by(column).limit(1).offset(rows).subquery()
        found = connection.execute(
            select(self._column.carried(ahead.c.value), ahead.c.value > self._column.bind(lower))
        ).one_or_none()
        if found is None:
            return Window(from_lower, {"end": True})
        boundary, is_beyond = found
        if not is_beyond:
            return self._part_of_tie(connection, lower, None, rows)
        return Window(and_(from_lower, column < self._column.bind(boundary)), {"from": boundary})

    def stride(self, began: JsonObject, position: JsonObject, times: float) -> Window | None:
        """Return the window by the distance of two values of the column."""
        if began.keys() != {"from"} or position.keys() != {"from"}:
            return None
        lower = _carried(position["from"])
        bound = value_ahead(self._type, _carried(began["from"]), lower, times)
        if bound is None:
            return None
        column = self._column.expression
        condition = and_(column >= self._column.bind(lower), column < self._column.bind(bound), self._below)
        return Window(condition, {"from": bound}, is_guess=True)

    def _first_value(self, connection: Connection, position: JsonObject) -> Carried | None:
        if position.get("end"):
            return None
        if "from" in position:
            return _carried(position["from"])
        column = self._column.expression
        start = self._floor if "beyond" not in position else column > self._column.bind(_carried(position["beyond"]))
        first = select(self._column.carried(column)).where(start, self._below).order_by(column).limit(1)
        return connection.execute(first).scalar_one_or_none()

    def _part_of_tie(self, connection: Connection, value: Carried, after: Key | None, rows: int) -> Window:
        equal = self._column.expression == self._column.bind(value)
        if not self._keys:
            return Window(equal, {"beyond": value}, is_divisible=False)
        left = equal if after is None else and_(equal, self._keys.beyond(after))
        boundary = self._keys.nth(connection, left, rows)
        if boundary is None:
            return Window(left, {"beyond": value})
        return Window(and_(left, self._keys.up_to(boundary)), {"from": value, "within": stored_key(boundary)})


class KeyWalk:
    """Windows of the primary key, from the smallest to what was the largest when the walk began."""

    def __init__(self, facts: TableFacts, table: Table) -> None:
        self._keys = keys_of(facts, table)

    def start(self, connection: Connection) -> JsonObject:
        """Return the position before the first key; new rows beyond the last one are not walked."""
        last = self._keys.last(connection)
        return {"end": True} if last is None else {"last": stored_key(last)}

    def next_window(self, connection: Connection, position: JsonObject, rows: int) -> Window | None:
        """Return the next `rows` keys."""
        if position.get("end"):
            return None
        last = read_key(position["last"])
        left = self._keys.up_to(last)
        if "beyond" in position:
            left = and_(self._keys.beyond(read_key(position["beyond"])), left)
        boundary = self._keys.nth(connection, left, rows)
        if boundary is None:
            return Window(left, {"end": True})
        return Window(
            and_(left, self._keys.up_to(boundary)), {"last": position["last"], "beyond": stored_key(boundary)}
        )

    def stride(self, began: JsonObject, position: JsonObject, times: float) -> None:
        """Return None: where a walk follows the key, most of its rows may not be meant."""


def _carried(value: object) -> Carried:
    assert isinstance(value, int | float | str)
    return value
