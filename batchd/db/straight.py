"""A connection that sends composed statements straight to SQLite's driver.

SQLAlchemy compiles each of them, once, and its types turn the values to and fro. Left out is what it does anew at each
execution (keys of caches, contexts, the cursor's metadata), which takes several times as long as SQLite does. For
simulations, which do nothing else; whatever cannot be sent so goes the usual way, on the same connection.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.sql.compiler import SQLCompiler

from batchd.db.composed import Composed

Given = Mapping[str, Any]


class Straight(Connection):
    """One connection, for as long as its database lives and for one thread; a transaction is `reading` or `writing`."""

    def __init__(self, engine: Engine, composed: Composed) -> None:
        super().__init__(engine)
        self._composed = composed
        self._known: dict[tuple[int, tuple[str, ...], bool], _Sent | None] = {}
        self._driver: Any = self.connection.driver_connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield it for statements that only read: nobody else is there, so each may stand for itself."""
        try:
            yield self
        finally:
            if self.in_transaction():
                self.rollback()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield it inside a transaction that commits at the end, or rolls back on any exception."""
        self._driver.execute("BEGIN")
        try:
            yield self
        except BaseException:
            self._end(self.rollback, self._driver.rollback)
            raise
        self._end(self.commit, self._driver.commit)

    def _end(self, usual: Callable[[], None], straight: Callable[[], None]) -> None:
        if self.in_transaction():  # as far as SQLAlchemy knows
            usual()
        else:
            straight()

    def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """See `Connection`."""
        if not options and self._composed.has(statement):
            sent = self._sent(statement, parameters)
            if sent is not None:
                with contextlib.suppress(sqlite3.Error):  # said again below, in SQLAlchemy's words
                    return sent.execute(self._driver, parameters)
        return super().execute(statement, parameters, **options)

    def _sent(self, statement: Any, parameters: Any) -> _Sent | None:
        is_many = isinstance(parameters, list)
        first: Given = (parameters[0] if is_many else parameters) or {}
        key = (id(statement), tuple(first), is_many)
        if key not in self._known:
            compiled = statement.compile(
                dialect=self.engine.dialect, column_keys=list(first) or None, for_executemany=is_many
            )
            is_plain = not (compiled.insert_prefetch or compiled.update_prefetch)
            self._known[key] = _Sent(compiled, first) if is_plain else None
        return self._known[key]


class _Sent:
    """One statement as the driver gets it, for parameters of these names."""

    def __init__(self, compiled: SQLCompiler, first: Given) -> None:
        state = compiled.construct_expanded_state(dict(first), escape_names=False)
        dialect = compiled.dialect
        asked = {name: bound.callable for name, bound in compiled.binds.items() if bound.callable is not None}
        writers: dict[str, Any] = dict(state.processors) | {
            name: bound.type.dialect_impl(dialect).bind_processor(dialect) for name, bound in compiled.binds.items()
        }
        self._sql = state.statement
        self._values = [
            _value(name, state.parameters[name], asked.get(name), writers.get(name), is_given=name in first)
            for name in state.positiontup or ()
        ]
        columns = list(compiled.statement.exported_columns)  # type: ignore[union-attr]
        self._described = SimpleResultMetaData([column.key or "" for column in columns])
        kinds = [column.type.dialect_impl(dialect) for column in columns]
        self._readers = [kind.result_processor(dialect, None) for kind in kinds]
        self._returns = bool(columns)

    def execute(self, driver: sqlite3.Connection, parameters: Any) -> Any:
        """Execute it once for each of the parameters that are a list, else once."""
        each: Sequence[Given] = parameters if isinstance(parameters, list) else [parameters or {}]
        values = [tuple(value(given) for value in self._values) for given in each]
        if not self._returns:
            return _Changed(
                driver.executemany(self._sql, values) if len(values) > 1 else driver.execute(self._sql, values[0])
            )
        rows = [row for bound in values for row in driver.execute(self._sql, bound).fetchall()]
        return IteratorResult(self._described, iter([self._read(row) for row in rows]))

    def _read(self, row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple([value if read is None else read(value) for read, value in zip(self._readers, row, strict=True)])


class _Changed:
    """What a statement that returns no rows comes to."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.rowcount = cursor.rowcount


def _value(
    name: str,
    fixed: Any,
    asked: Callable[[], Any] | None,
    write: Callable[[Any], Any] | None,
    *,
    is_given: bool,
) -> Callable[[Given], Any]:
    """Return what makes the parameter's value of what is given."""
    if is_given:
        return (lambda given: given[name]) if write is None else (lambda given: write(given[name]))
    if asked is not None:
        return (lambda _given: asked()) if write is None else (lambda _given: write(asked()))
    always = fixed if write is None else write(fixed)
    return lambda _given: always
