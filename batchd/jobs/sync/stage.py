"""A page of records on its way into the staging table, and those that do not fit on their way to the rejects.

On PostgreSQL a page is copied straight into columns of the target's own types, behind a savepoint: COPY makes the
values and checks them. If it refuses, the page goes through a table of texts, which tells the records that do not fit
from the others. SQLite checks nothing by itself, so there every page takes that way.

A rejected record leaves its key in the staging table, under a position below zero: its row is not missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select

from batchd.db.catalogue_facts import ColumnFacts
from batchd.db.dialect import Failure
from batchd.db.engine import Database
from batchd.db.fitting import Fitted, Fitting, Value
from batchd.db.staging import POSITION, Misfit, Staging, Texts, block_of, temporary_staging
from batchd.jobs.sync.mapping import FieldMap, Mapped, record_json
from batchd.jobs.sync.read_records import ReadRecords
from batchd.store.rejects import Reject

_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class StagedPage:
    """What became of a page: rows in the staging table, rejects, and how many of these had no key."""

    rows: int
    rejects: list[Reject]
    unkeyed: int


class PageStager:
    """Stages pages of one run. For the attempt's thread."""

    def __init__(self, database: Database, fields: FieldMap, staged: Staging, source: str) -> None:
        self._database = database
        self._fields = fields
        self._staged = staged
        self._source = source
        self._names = [column.name for column in fields.columns]

    def stage(self, connection: Connection, records: Sequence[Any], first: int) -> StagedPage:
        """Stage the records, their positions from `first`, in the caller's transaction."""
        together = records.texts if isinstance(records, ReadRecords) else self._fields.mapped_together(records)
        if together is not None:
            return self._placed(connection, records, first, range(first, first + len(records)), together, [])
        positions: list[int] = []
        rows: list[Texts] = []
        bad: list[tuple[int, Mapped]] = []
        for position, record in enumerate(records, start=first):
            mapped = self._fields.mapped(record)
            if mapped.reason is None:
                positions.append(position)
                rows.append(mapped.texts)
            else:
                bad.append((position, mapped))
        return self._placed(connection, records, first, positions, rows, bad)

    def _placed(
        self,
        connection: Connection,
        records: Sequence[Any],
        first: int,
        positions: Sequence[int],
        rows: Sequence[Texts],
        bad: Sequence[tuple[int, Mapped]],
    ) -> StagedPage:
        rejects: list[Reject] = []
        keys: list[tuple[int, tuple[str, ...] | None]] = []
        for position, mapped in bad:
            record, shown = record_json(records[position - first]), self._fields.key_text(mapped.texts)
            rejects.append(Reject(self._source, position, mapped.reason or "", shown, record))
            keys.append((position, mapped.key))
        misfits = self._stage_rows(connection, positions, rows)
        texts_of = dict(zip(positions, rows, strict=True)) if misfits else {}
        for misfit in misfits:
            texts = texts_of[misfit.position]
            record = record_json(records[misfit.position - first])
            rejects.append(Reject(self._source, misfit.position, misfit.reason, self._fields.key_text(texts), record))
            key = texts[: len(self._fields.keys)]
            keys.append((misfit.position, tuple(text or "" for text in key)))
        staged, unkeyed = self._stage_keys(connection, keys)
        rejects.sort(key=lambda reject: reject.position)
        return StagedPage(len(rows) - len(misfits) + staged, rejects, unkeyed)

    def _stage_rows(
        self, connection: Connection, positions: Sequence[int], rows: Sequence[Texts]
    ) -> tuple[Misfit, ...]:
        block = block_of(self._database.dialect.name, positions, rows)
        if not block.rows:
            return block.misfits
        if self._database.dialect.name == "postgresql":
            try:
                with connection.begin_nested():
                    self._staged.add(connection, block)
            except Exception as error:
                if self._database.failure(error) is not Failure.ROW:
                    raise
            else:
                return block.misfits
        with temporary_staging(connection, self._names) as texts:
            texts.add(connection, block)
            fitted = self._fit(connection, texts, self._fields.columns, texts.position)
        return (*block.misfits, *fitted.misfits)

    def _stage_keys(
        self, connection: Connection, keys: Sequence[tuple[int, tuple[str, ...] | None]]
    ) -> tuple[int, int]:
        """Stage the keys of rejected records; return how many there are now, and how many had none.

        A key that is no value of its column is that of no row either, and need not be kept.
        """
        whole = [(position, key) for position, key in keys if key is not None]
        unkeyed = len(keys) - len(whole)
        if not whole:
            return 0, unkeyed
        columns = self._fields.columns[: len(self._fields.keys)]
        block = block_of(self._database.dialect.name, [position for position, _ in whole], [key for _, key in whole])
        with temporary_staging(connection, [column.name for column in columns]) as texts:
            texts.add(connection, block)
            fitted = self._fit(connection, texts, columns, -texts.position)
        return sum(fitted.done), unkeyed

    def _fit(
        self, connection: Connection, texts: Staging, columns: Sequence[ColumnFacts], position: ColumnElement[int]
    ) -> Fitted[int]:
        """Move what fits from the table of texts into the staging table."""
        dialect = self._database.dialect
        names = [column.name for column in columns]
        values = [Value(column, texts.text(column.name)) for column in columns]

        def move(condition: ColumnElement[bool]) -> int:
            chosen = select(position, *(value.cast(dialect.name) for value in values)).where(condition)
            statement = insert(self._staged.table).from_select([POSITION, *names], chosen)
            return connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount

        return Fitting(connection, dialect, texts, values, move).run(most_misfits=_NO_LIMIT)
