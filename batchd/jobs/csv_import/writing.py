"""The one statement that takes a chunk from the staging table to where it belongs, whatever is there already."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, cast, exists, func, literal_column, or_, select

from batchd.db.dialect import Dialect
from batchd.db.fitting import Value
from batchd.db.staging import Staging
from batchd.jobs.csv_import.mapping import TableMapping

_WITHOUT_EQUALITY = frozenset({"json", "xml", "point", "polygon", "path", "lseg", "box", "circle", "line"})


class Conflict(enum.StrEnum):
    """What becomes of a record whose key the table has already."""

    ERROR = "error"
    SKIP = "skip"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Written:
    """What became of records: `skipped` are those that changed nothing."""

    inserted: int = 0
    updated: int = 0
    skipped: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.inserted + other.inserted, self.updated + other.updated, self.skipped + other.skipped)


class Writer:
    """Moves staged rows into the table. For one chunk's transaction.

    With UPDATE, `key` names the unique key that decides and `updated` the columns that are set; a row that has these
    values already is not written. Of several records with one key the last in the file counts. `staged` counts the
    rows, where `move` is called once for all of them.
    """

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        mapping: TableMapping,
        staging: Staging,
        conflict: Conflict,
        *,
        key: Sequence[str],
        updated: Sequence[str],
        staged: int | None = None,
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self._staging = staging
        self._conflict = conflict
        self._key = tuple(key)
        self._updated = tuple(updated)
        self._all_staged = staged
        self._table = mapping.core
        self._names = [column.name for column in mapping.columns]
        self._types = {column.name: column.type for column in mapping.columns}
        self.values: list[Value] = mapping.values(staging)
        self._casts = {value.column.name: value.cast(dialect.name) for value in self.values}

    def move(self, condition: ColumnElement[bool]) -> Written:
        """Move the staged rows that meet the condition; raises driver errors."""
        if self._conflict is Conflict.UPDATE and self._updated:
            return self._upserted(condition)
        chosen = select(*self._casts.values()).where(condition).order_by(self._staging.position)
        insert = self._dialect.insert(self._table).from_select(self._names, chosen)
        if self._conflict is not Conflict.ERROR:
            insert = insert.on_conflict_do_nothing()
        inserted = self._connection.execute(insert.execution_options(preserve_rowcount=True)).rowcount
        if self._conflict is Conflict.ERROR:
            return Written(inserted=inserted)
        return Written(inserted=inserted, skipped=self._staged(condition) - inserted)

    def _upserted(self, condition: ColumnElement[bool]) -> Written:
        staged = self._staged(condition)
        insert = self._dialect.insert(self._table).from_select(self._names, self._last_of_each_key(condition))
        upsert = insert.on_conflict_do_update(
            index_elements=[self._table.c[name] for name in self._key],
            set_={name: insert.excluded[name] for name in self._updated},
            where=or_(*(self._differs(name, insert.excluded[name]) for name in self._updated)),
        )
        if self._dialect.name == "postgresql":
            # A row that was inserted has no older version: its xmax is 0.
            written = upsert.returning(literal_column("(xmax = 0)").label("fresh")).cte("written")
            counts = select(func.count(), func.count().filter(literal_column("fresh"))).select_from(written)
            touched, inserted = self._connection.execute(counts).one()
        else:
            inserted = self._new_keys(condition)
            touched = self._connection.execute(upsert.execution_options(preserve_rowcount=True)).rowcount
        return Written(inserted, touched - inserted, staged - touched)

    def _last_of_each_key(self, condition: ColumnElement[bool]) -> Select[Any]:
        """Return the rows to write: no statement may meet one key twice. Keys with a NULL are never equal."""
        rank = func.row_number().over(
            partition_by=[self._casts[name] for name in self._key], order_by=self._staging.position.desc()
        )
        ranked = (
            select(
                *(value.label(f"c{number}") for number, value in enumerate(self._casts.values())),
                self._staging.position.label("place"),
                rank.label("rank"),
            )
            .where(condition)
            .subquery("ranked")
        )
        place_of = {name: ranked.c[f"c{number}"] for number, name in enumerate(self._casts)}
        counts = or_(ranked.c["rank"] == 1, *(place_of[name].is_(None) for name in self._key))
        return select(*place_of.values()).where(counts).order_by(ranked.c.place)

    def _new_keys(self, condition: ColumnElement[bool]) -> int:
        """Return how many keys the table does not have yet: SQLite does not tell an insert from an update."""
        keys = [self._casts[name] for name in self._key]
        there = exists().where(*(self._table.c[name] == key for name, key in zip(self._key, keys, strict=True)))
        has_null = or_(*(key.is_(None) for key in keys))
        new = select(*keys).where(condition, ~there, ~has_null).distinct().subquery()
        without = select(func.count()).select_from(self._staging.table).where(condition, has_null)
        fresh = self._connection.execute(select(func.count()).select_from(new)).scalar_one()
        return fresh + self._connection.execute(without).scalar_one()

    def _staged(self, condition: ColumnElement[bool]) -> int:
        if self._all_staged is not None:
            return self._all_staged
        counted = select(func.count()).select_from(self._staging.table).where(condition)
        return self._connection.execute(counted).scalar_one()

    def _differs(self, name: str, new: ColumnElement[Any]) -> ColumnElement[bool]:
        old: ColumnElement[Any] = self._table.c[name]
        if self._types[name] in _WITHOUT_EQUALITY:
            return cast(old, Text).is_distinct_from(cast(new, Text))
        return old.is_distinct_from(new)
