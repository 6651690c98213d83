"""What the database's catalogue says about one table: its real name, columns, keys and indexes.

Only what chunked work needs, and cheap: nothing here reads the table's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Column, ColumnElement, Connection, MetaData, Table, literal_column
from sqlalchemy.sql.elements import quoted_name

from batchd.db import catalogue_postgresql, catalogue_sqlite
from batchd.db.catalogue_facts import ColumnFacts, IndexFacts
from batchd.db.identifiers import nearest, parse_name, written
from batchd.errors import JobError

ROWID = "rowid"


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table as it is. `key` is what identifies a row (a primary or unique key, or SQLite's rowid); may be empty.

    `correlation` says for some columns how the rows' physical order follows the column's, from -1 to 1.
    """

    dialect: str
    schema: str | None
    name: str
    columns: tuple[ColumnFacts, ...]
    key: tuple[str, ...]
    indexes: tuple[IndexFacts, ...]
    correlation: Mapping[str, float] = field(default_factory=dict)
    is_partitioned: bool = False

    @property
    def written(self) -> str:
        """Return the name as a person would write it in SQL."""
        return written(self.schema, self.name)

    @property
    def has_hidden_key(self) -> bool:
        """Whether the key is SQLite's rowid, which is no column."""
        return self.key == (ROWID,) and all(column.name.lower() != ROWID for column in self.columns)

    @property
    def unique_keys(self) -> tuple[tuple[str, ...], ...]:
        """Return what ON CONFLICT can name: the primary key, then every unique key that is checked at once."""
        usable = [index for index in self.indexes if index.unique and index.immediate]
        ordered = sorted(usable, key=lambda index: not index.primary)
        return tuple(dict.fromkeys(index.columns for index in ordered))

    def column_named(self, text: str) -> ColumnFacts:
        """Return the column that `text` means; raises JobError with the nearest names."""
        names = [column.name for column in self.columns]
        try:
            parts = parse_name(text)
            chosen = parts[0].choose(names) if len(parts) == 1 else None
        except ValueError as error:
            raise JobError(f"column of {self.written}: {error}", retryable=False) from error
        if chosen is None:
            raise JobError(
                f"table {self.written} has no column {text}",
                hint=nearest(text.strip('"'), names) or "its columns are " + ", ".join(names[:20]),
                retryable=False,
            )
        return next(column for column in self.columns if column.name == chosen)

    def is_indexed(self, column: str) -> bool:
        """Whether an index of the whole table starts with the column."""
        return any(index.columns[0] == column for index in self.indexes)

    def as_table(self) -> Table:
        """Return the table for SQLAlchemy Core, every name quoted, its columns without types."""
        return Table(
            quoted_name(self.name, quote=True),
            MetaData(),
            *(Column(quoted_name(column.name, quote=True)) for column in self.columns),
            schema=None if self.schema is None else quoted_name(self.schema, quote=True),
        )

    def key_columns(self, table: Table) -> tuple[ColumnElement[object], ...]:
        """Return the key as expressions over `as_table()`."""
        if self.has_hidden_key:
            return (literal_column(ROWID),)
        return tuple(table.c[name] for name in self.key)

    def type_of(self, column: str) -> str:
        """Return the column's declared type; that of a rowid is integer."""
        return next((facts.type for facts in self.columns if facts.name == column), "INTEGER")


def find_table(connection: Connection, text: str) -> TableFacts:
    """Return the facts of the table that `text` means; raises JobError, with the nearest names, when there is none."""
    catalogue = catalogue_postgresql if connection.dialect.name == "postgresql" else catalogue_sqlite
    try:
        parts = parse_name(text)
        *qualifiers, name = parts
        schema = qualifiers[-1] if qualifiers else None
        found = catalogue.locate(connection, schema, name) if len(qualifiers) <= 1 else None
    except ValueError as error:
        raise JobError(f"table: {error}", retryable=False) from error
    if found is None:
        known = catalogue.all_tables(connection)
        raise JobError(
            f"there is no table {text}",
            hint=nearest(name.text if schema is None else text.replace('"', ""), known) or nearest(name.text, known),
            retryable=False,
        )
    indexes = catalogue.indexes(connection, found)
    return TableFacts(
        dialect=connection.dialect.name,
        schema=found.schema,
        name=found.name,
        columns=catalogue.columns(connection, found),
        key=catalogue.key(connection, found, indexes),
        indexes=indexes,
        correlation=catalogue.correlation(connection, found),
        is_partitioned=found.is_partitioned,
    )
