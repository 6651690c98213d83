"""Keys of rows: compared in the database by its own rules, carried through Python and a checkpoint without loss.

A key is never compared in Python: which of two texts is the greater is the collation's business, and whether 1.0 is
10/10 the type's. Python only carries keys and asks whether two of them are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    Table,
    Text,
    cast,
    func,
    literal,
    select,
    tuple_,
)

from batchd.db.catalogue import TableFacts
from batchd.db.time_column import Carried
from batchd.db.types import NamedType
from batchd.domain.job import JsonValue

KeyPart: TypeAlias = Carried | bytes
"""As `Carried`; SQLite may have bytes in any column."""

Key: TypeAlias = tuple[KeyPart, ...]


class Carrier:
    """One column: how its values travel to Python and back without losing anything.

    On PostgreSQL as text: exact for every type, also for 'infinity', which Python's datetime cannot hold.
    """

    def __init__(self, dialect: str, expression: ColumnElement[Any], type_name: str) -> None:
        self.expression = expression
        self._type = NamedType(type_name) if dialect == "postgresql" else None

    @property
    def is_text_bound(self) -> bool:
        """Whether values travel as text and are cast to the column's type."""
        return self._type is not None

    def carried(self, value: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the expression that reads a value of the column's type in the shape in which it travels."""
        return value if self._type is None else cast(value, Text)

    def bind(self, value: KeyPart) -> ColumnElement[Any]:
        """Return the value as an expression of the column's own type."""
        if self._type is None:
            return literal(value)
        return cast(literal(str(value), String()), self._type)


class Keys:
    """The columns of a key together, compared as a row over `source`."""

    def __init__(self, source: FromClause, carriers: Sequence[Carrier]) -> None:
        self._source = source
        self._carriers = tuple(carriers)

    def __bool__(self) -> bool:
        return bool(self._carriers)

    @property
    def order(self) -> tuple[ColumnElement[Any], ...]:
        """Return what to order by."""
        return tuple(carrier.expression for carrier in self._carriers)

    @property
    def carried(self) -> tuple[ColumnElement[Any], ...]:
        """Return what to select to read a row's key as it travels."""
        return tuple(carrier.carried(carrier.expression) for carrier in self._carriers)

    def beyond(self, key: Key) -> ColumnElement[bool]:
        """Return the condition that a row comes after the key."""
        condition: ColumnElement[bool] = self._row() > self._bound(key)
        return condition

    def up_to(self, key: Key) -> ColumnElement[bool]:
        """Return the condition that a row comes before the key or has it."""
        condition: ColumnElement[bool] = self._row() <= self._bound(key)
        return condition

    def nth(self, connection: Connection, among: ColumnElement[bool], rows: int) -> Key | None:
        """Return the key of the row number `rows` (from 1) if there are more rows after it."""
        ordered = self._select().where(among).order_by(*self.order)
        found = self._read(connection, ordered.limit(1).offset(rows - 1))
        if found is None:
            return None
        # Ordered, or a planner may look for one of many from the table's beginning, where there are none any more.
        more = select(literal(1)).select_from(self._source).where(among, self.beyond(found)).order_by(*self.order)
        return found if connection.execute(more.limit(1)).first() else None

    def last(self, connection: Connection) -> Key | None:
        """Return the largest key, or None when there is no row."""
        backwards = (expression.desc() for expression in self.order)
        return self._read(connection, self._select().order_by(*backwards).limit(1))

    def boundary(self, connection: Connection, among: ColumnElement[bool], rows: int) -> Key | None:
        """Return the key of the row number `rows` (from 1) if there is a row after it.

        One statement that reads `rows` + 1 rows in the order of the key, and sends two of them.
        """
        first = self._select().where(among).order_by(*self.order).limit(rows + 1).subquery("first_rows")
        counted = select(*first.c, func.count().over().label("found")).subquery("counted")
        parts = [counted.c[f"k{number}"] for number in range(len(self._carriers))]
        carried = [carrier.carried(part) for carrier, part in zip(self._carriers, parts, strict=True)]
        largest = select(*carried, counted.c.found).order_by(*(part.desc() for part in parts)).limit(2)
        found = connection.execute(largest).all()
        return tuple(found[1][:-1]) if found and found[0].found > rows else None

    def _select(self) -> Select[Any]:
        labelled = (carrier.expression.label(f"k{number}") for number, carrier in enumerate(self._carriers))
        return select(*labelled).select_from(self._source)

    def _read(self, connection: Connection, one: Select[Any]) -> Key | None:
        """Return the one key; converted outside, or it would be done for each row that OFFSET steps over."""
        inner = one.subquery()
        carried = (carrier.carried(inner.c[f"k{number}"]) for number, carrier in enumerate(self._carriers))
        found = connection.execute(select(*carried)).one_or_none()
        return None if found is None else tuple(found)

    def _row(self) -> Any:
        expressions = [carrier.expression for carrier in self._carriers]
        return tuple_(*expressions) if len(expressions) > 1 else expressions[0]

    def _bound(self, key: Key) -> Any:
        bound = [carrier.bind(value) for carrier, value in zip(self._carriers, key, strict=True)]
        return tuple_(*bound) if len(bound) > 1 else bound[0]


def carrier_of(facts: TableFacts, table: Table, column: str) -> Carrier:
    """Return the carrier of one of the table's columns."""
    return Carrier(facts.dialect, table.c[column], facts.type_of(column))


def keys_of(facts: TableFacts, table: Table) -> Keys:
    """Return the table's own key; false when it has none."""
    expressions = facts.key_columns(table)
    carriers = [
        Carrier(facts.dialect, expression, facts.type_of(name))
        for expression, name in zip(expressions, facts.key, strict=True)
    ]
    return Keys(table, carriers)


def stored_key(key: Key) -> list[JsonValue]:
    """Return the key as JSON, for a checkpoint."""
    return [{"hex": part.hex()} if isinstance(part, bytes) else part for part in key]


def read_key(stored: object) -> Key:
    """Return the key that `stored_key` wrote."""
    assert isinstance(stored, list)
    return tuple(_read_part(part) for part in stored)


def _read_part(stored: object) -> KeyPart:
    if isinstance(stored, dict):
        return bytes.fromhex(stored["hex"])
    assert isinstance(stored, int | float | str)
    return stored
