"""Walking through a table in windows, so that a big change becomes many short transactions.

A window is a range of an index, looked up ahead: `ORDER BY column OFFSET n LIMIT 1` from the last boundary finds where
the next n rows end, and the statement then takes `column >= a AND column < b`. Nothing is ever scanned twice: a LIMIT
from the head of the index, or a list of ctids, rereads the rows that are already dead and collapses while an old
snapshot keeps them visible.

`ColumnWalk` follows an index on the column itself. `KeyWalk` follows the primary key with the predicate as a filter:
for a column without an index, or one whose order has nothing to do with where its rows lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    Table,
    Text,
    and_,
    cast,
    literal,
    select,
    true,
    tuple_,
)

from batchd.db.catalogue import TableFacts
from batchd.db.time_column import Before, Carried
from batchd.db.types import NamedType
from batchd.domain.job import JsonObject

_Key: TypeAlias = tuple[Carried, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A range of rows, and the position (small JSON, for a checkpoint) at which the walk goes on after it.

    `is_divisible` is False for a range that cannot be made smaller: equal values in a table without a key.
    """

    condition: ColumnElement[bool]
    after: JsonObject
    is_divisible: bool = True


class Walk(Protocol):
    """A way through a table. Holds no state: the position does."""

    def start(self, connection: Connection) -> JsonObject:
        """Return the position before the first window."""
        ...

    def next_window(self, connection: Connection, position: JsonObject, rows: int) -> Window | None:
        """Return the window of at most `rows` rows of the index at the position, or None at the end."""
        ...


class ColumnWalk:
    """Windows of an index that starts with the column, from its smallest value up to the cutoff."""

    def __init__(self, facts: TableFacts, table: Table, column: str, before: Before) -> None:
        self._column = carrier_of(facts, table, column)
        self._keys = _Keys(facts, table)
        self._below = self._column.expression < self._column.bind(before.upper)
        self._floor = true() if before.floor is None else self._column.expression >= self._column.bind(before.floor)

    def start(self, connection: Connection) -> JsonObject:  # noqa: ARG002
        """Return the position before the smallest value."""
        return {}

    def next_window(self, connection: Connection, position: JsonObject, rows: int) -> Window | None:
        """Return the next values; equal values that are more than `rows` rows are split by the key."""
        if "within" in position:
            return self._part_of_tie(connection, _carried(position["from"]), _key(position["within"]), rows)
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

    def _first_value(self, connection: Connection, position: JsonObject) -> Carried | None:
        if position.get("end"):
            return None
        if "from" in position:
            return _carried(position["from"])
        column = self._column.expression
        start = self._floor if "beyond" not in position else column > self._column.bind(_carried(position["beyond"]))
        first = select(self._column.carried(column)).where(start, self._below).order_by(column).limit(1)
        return connection.execute(first).scalar_one_or_none()

    def _part_of_tie(self, connection: Connection, value: Carried, after: _Key | None, rows: int) -> Window:
        equal = self._column.expression == self._column.bind(value)
        if not self._keys:
            return Window(equal, {"beyond": value}, is_divisible=False)
        left = equal if after is None else and_(equal, self._keys.beyond(after))
        boundary = self._keys.nth(connection, left, rows)
        if boundary is None:
            return Window(left, {"beyond": value})
        return Window(and_(left, self._keys.up_to(boundary)), {"from": value, "within": list(boundary)})


class KeyWalk:
    """Windows of the primary key, from the smallest to what was the largest when the walk began."""

    def __init__(self, facts: TableFacts, table: Table) -> None:
        self._keys = _Keys(facts, table)

    def start(self, connection: Connection) -> JsonObject:
        """Return the position before the first key; new rows beyond the last one are not walked."""
        last = self._keys.last(connection)
        return {"end": True} if last is None else {"last": list(last)}

    def next_window(self, connection: Connection, position: JsonObject, rows: int) -> Window | None:
        """Return the next `rows` keys."""
        if position.get("end"):
            return None
        last = _key(position["last"])
        left = self._keys.up_to(last)
        if "beyond" in position:
            left = and_(self._keys.beyond(_key(position["beyond"])), left)
        boundary = self._keys.nth(connection, left, rows)
        if boundary is None:
            return Window(left, {"end": True})
        return Window(and_(left, self._keys.up_to(boundary)), {"last": position["last"], "beyond": list(boundary)})


class Carrier:
    """One column: how its values travel to Python and back without losing anything.

    On PostgreSQL as text: exact for every type, also for 'infinity', which Python's datetime cannot hold.
    """

    def __init__(self, facts: TableFacts, expression: ColumnElement[Any], type_name: str) -> None:
        self.expression = expression
        self._type = NamedType(type_name) if facts.dialect == "postgresql" else None

    def carried(self, value: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the expression that reads a value of the column's type in the shape in which it travels."""
        return value if self._type is None else cast(value, Text)

    def bind(self, value: Carried) -> ColumnElement[Any]:
        """Return the value as an expression of the column's own type."""
        if self._type is None:
            return literal(value)
        return cast(literal(str(value), String()), self._type)


def carrier_of(facts: TableFacts, table: Table, column: str) -> Carrier:
    """Return the carrier of one of the table's columns."""
    return Carrier(facts, table.c[column], facts.type_of(column))


class _Keys:
    """The key's columns together, compared as a row."""

    def __init__(self, facts: TableFacts, table: Table) -> None:
        expressions = facts.key_columns(table)
        self._table = table
        self._carriers = [
            Carrier(facts, expression, facts.type_of(name))
            for expression, name in zip(expressions, facts.key, strict=True)
        ]

    def __bool__(self) -> bool:
        return bool(self._carriers)

    def beyond(self, key: _Key) -> ColumnElement[bool]:
        condition: ColumnElement[bool] = self._row() > self._bound(key)
        return condition

    def up_to(self, key: _Key) -> ColumnElement[bool]:
        condition: ColumnElement[bool] = self._row() <= self._bound(key)
        return condition

    def nth(self, connection: Connection, among: ColumnElement[bool], rows: int) -> _Key | None:
        """Return the key of the row number `rows` (from 1) if there are more rows after it."""
        ordered = self._select().where(among).order_by(*(carrier.expression for carrier in self._carriers))
        found = self._read(connection, ordered.limit(1).offset(rows - 1))
        if found is None:
            return None
        more = select(literal(1)).select_from(self._table).where(among, self.beyond(found)).limit(1)
        return found if connection.execute(more).first() else None

    def last(self, connection: Connection) -> _Key | None:
        backwards = (carrier.expression.desc() for carrier in self._carriers)
        return self._read(connection, self._select().order_by(*backwards).limit(1))

    def _select(self) -> Select[Any]:
        labelled = (carrier.expression.label(f"k{number}") for number, carrier in enumerate(self._carriers))
        return select(*labelled).select_from(self._table)

    def _read(self, connection: Connection, one: Select[Any]) -> _Key | None:
        """Return the one key; converted outside, or it would be done for each row that OFFSET steps over."""
        inner = one.subquery()
        carried = (carrier.carried(inner.c[f"k{number}"]) for number, carrier in enumerate(self._carriers))
        found = connection.execute(select(*carried)).one_or_none()
        return None if found is None else tuple(found)

    def _row(self) -> Any:
        expressions = [carrier.expression for carrier in self._carriers]
        return tuple_(*expressions) if len(expressions) > 1 else expressions[0]

    def _bound(self, key: Sequence[Carried]) -> Any:
        bound = [carrier.bind(value) for carrier, value in zip(self._carriers, key, strict=True)]
        return tuple_(*bound) if len(bound) > 1 else bound[0]


def _carried(value: object) -> Carried:
    assert isinstance(value, int | float | str)
    return value


def _key(values: object) -> _Key:
    assert isinstance(values, list)
    return tuple(_carried(value) for value in values)
