"""SQLite's statements that write many rows, each row by row."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Column, ColumnElement, Select, Table, Update, bindparam, literal_column, select, update
from sqlalchemy.dialects.sqlite import Insert, insert

from batchd.db.dialect import Copied


class Clocked(Protocol):
    """A dialect, as far as these need it."""

    def now(self) -> ColumnElement[Any]:
        """Return the database's clock."""
        ...

    def is_given(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Return the condition that the column has one of the values in the parameter."""
        ...


def new_rows(table: Table, *returning: Column[Any]) -> Any:
    """Return the INSERT of rows that leaves out those which break a unique rule."""
    return insert(table).on_conflict_do_nothing().returning(*returning)


def copied_rows(dialect: Clocked, copied: Copied) -> Select[Any]:
    """Return the SELECT of what is copied, behind the id; its parameter is `ids`."""
    source = copied.source
    columns = [source.c[name] for name in copied.columns]
    return select(source.c.id, *columns).where(dialect.is_given(source.c.id, "ids"))


def stamped_rows(dialect: Clocked, table: Table, stamped: tuple[str, ...]) -> Insert:
    """Return the INSERT of rows in which some columns get the database's time."""
    return insert(table).values(dict.fromkeys(stamped, dialect.now()))


def changed_rows(
    dialect: Clocked,
    table: Table,
    key: tuple[str, ...],
    columns: tuple[str, ...],
    where: tuple[tuple[str, Any], ...],
    stamped: tuple[str, ...],
) -> Update:
    """Return the UPDATE of the row with a key that is as `where` says, too; its parameters are `given_<column>`.

    What `where` says stands in the statement: see `batchd.store.states`.
    """
    bound = {name: bindparam(f"given_{name}", type_=table.c[name].type) for name in columns}
    these = [table.c[name] == bound[name] for name in key] + [
        table.c[name] == literal_column(f"'{is_}'") for name, is_ in where
    ]
    new = {name: value for name, value in bound.items() if name not in key} | dict.fromkeys(stamped, dialect.now())
    return update(table).where(*these).values(new)
