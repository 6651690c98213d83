"""Moving staged texts into a table's columns, and finding the rows that do not fit, each with a plain reason.

On PostgreSQL a cast that fails ends the statement. So a chunk is first tried as a whole, behind a savepoint. If that
fails, one query finds the misfits where the server can say which they are (PostgreSQL 16 and later), and what is left
is cut in halves until each bad row stands alone. Good chunks, the usual case, pay nothing.

SQLite casts whatever it is given: the text "abc" in an INTEGER column is simply stored. Here it counts as a misfit.
What a declared type takes on SQLite, empty fields aside:

    contains INT                a whole number of 64 bits
    REAL, FLOAT, DOUBLE, DECIMAL, NUMERIC  a number
    BOOL                        true, t, yes, y, on, 1 and their opposites in any case; stored as 1 or 0
    DATE, TIME                  an ISO 8601 date or moment of the real calendar, or a number; stored as written
    JSON                        a JSON document
    CHAR(n)                     a text of at most n characters
    everything else, TEXT too   any text: a TEXT column that holds dates does not say so, and is not guessed at
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Text, and_, case, cast, delete, func, literal, select, true
from sqlalchemy.exc import DBAPIError

from batchd.db import fitting_sqlite
from batchd.db.catalogue_facts import ColumnFacts
from batchd.db.dialect import Dialect, Failure
from batchd.db.staging import Misfit, Staging
from batchd.db.types import NamedType

T = TypeVar("T")

_OF_A_ROW = {Failure.ROW, Failure.FOREIGN_KEY, Failure.UNIQUE}
_KNOWS_INPUT_VALIDITY = (16, 0)
_LONGEST_REASON = 500
_TOO_LONG = "22001"


@dataclass(frozen=True, slots=True)
class Value:
    """What a column gets: `text` is an expression over the staging table, NULL where the column is to be NULL."""

    column: ColumnFacts
    text: ColumnElement[Any]

    def cast(self, dialect: str) -> ColumnElement[Any]:
        """Return the text as a value of the column's type; an explicit length is left to the assignment to check."""
        if dialect == "postgresql":
            return cast(self.text, NamedType(self.column.type))
        return fitting_sqlite.cast_text(self.column, self.text)


@dataclass(frozen=True, slots=True)
class Fitted(Generic[T]):
    """What moved: an answer of the statement for each part, and the rows that stayed behind, by position.

    `is_complete` is False when there were more misfits than allowed, and the rest was left alone.
    """

    done: tuple[T, ...]
    misfits: tuple[Misfit, ...]
    is_complete: bool = True


class DoesNotFit(Exception):
    """Some row does not fit; the transaction is of no use any more."""


class Fitting(Generic[T]):
    """Moves what fits. For one transaction of one thread; raises driver errors that no single row is to blame for.

    Without `is_careful` there is no savepoint, which saves two trips to the server: a row that does not fit raises
    DoesNotFit, and the caller starts the transaction again, carefully.

    `move` executes the statement for the staged rows that meet the condition and returns what it has to tell.
    """

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        staging: Staging,
        values: Sequence[Value],
        move: Callable[[ColumnElement[bool]], T],
        *,
        is_careful: bool = True,
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self._staging = staging
        self._values = values
        self._move = move
        self._is_careful = is_careful or dialect.name == "sqlite"
        self._done: list[T] = []
        self._misfits: list[Misfit] = []
        self._most = 0
        self._within: ColumnElement[bool] = true()

    def run(self, *, most_misfits: int, within: ColumnElement[bool] | None = None) -> Fitted[T]:
        """Move the staged rows, but for those that do not fit; give up when there are more than `most_misfits`.

        `within` says which of the staged rows, when it is not all of them; then give no `values` to be looked through.
        """
        self._most = most_misfits
        self._within = true() if within is None else within
        is_sqlite = self._dialect.name == "sqlite"
        if is_sqlite and self._values:
            self._sieve()
        is_done = not self._within_limit or self._moved(self._within) or self._is_sieved_and_moved(is_sqlite=is_sqlite)
        if not is_done:
            positions = select(self._staging.position).where(self._within).order_by(self._staging.position)
            self._bisect(list(self._connection.scalars(positions)))
        self._misfits.sort(key=lambda misfit: misfit.position)
        return Fitted(tuple(self._done), tuple(self._misfits), self._within_limit)

    @property
    def _within_limit(self) -> bool:
        return len(self._misfits) <= self._most

    def _is_sieved_and_moved(self, *, is_sqlite: bool) -> bool:
        """Whether the server could say which rows do not fit, and the others were moved."""
        if is_sqlite or not self._values or not self._knows_input_validity():
            return False
        self._sieve()
        return bool(self._misfits) and self._within_limit and self._moved(true())

    def _moved(self, condition: ColumnElement[bool]) -> bool:
        return self._failure_of(condition) is None

    def _failure_of(self, condition: ColumnElement[bool]) -> DBAPIError | None:
        """Return None when the rows were moved, or the error when a row is to blame."""
        try:
            with self._connection.begin_nested() if self._is_careful else contextlib.nullcontext():
                self._done.append(self._move(condition))
        except DBAPIError as error:
            if self._dialect.failure(error) not in _OF_A_ROW:
                raise
            if not self._is_careful:
                raise DoesNotFit from error
            return error
        return None

    def _bisect(self, positions: Sequence[int]) -> None:
        """Move each half; positions are in order, so that the last row of a key stays the last."""
        parts = [positions] if positions else []
        while parts and self._within_limit:
            part = parts.pop()
            error = self._failure_of(and_(self._within, self._staging.position.between(part[0], part[-1])))
            if error is None:
                continue
            if len(part) == 1:
                self._misfits.append(self._blamed(part[0], error))
                continue
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]

    def _sieve(self) -> None:
        """Set aside every row with a field that its column does not take, by one query."""
        reasons = [(value.column.name, self._reason(value)) for value in self._values]
        position = self._staging.position
        bad = case(*((reason.is_not(None), name) for name, reason in reasons), else_=None)
        why = func.coalesce(*(reason for _, reason in reasons), None)
        found = self._connection.execute(
            select(position, bad, why).where(bad.is_not(None)).order_by(position).limit(self._most + 1)
        ).all()
        self._misfits += [Misfit(row[0], _short(f"column {row[1]}: {row[2]}"), row[1]) for row in found]
        if found and self._within_limit:
            doomed = select(position).where(bad.is_not(None))
            self._connection.execute(delete(self._staging.table).where(position.in_(doomed)))

    def _reason(self, value: Value) -> ColumnElement[Any]:
        """Return an expression that says why the text does not fit; NULL when it does."""
        column = value.column
        nothing = and_(literal(not column.nullable), value.text.is_(None))
        if self._dialect.name == "sqlite":
            return case((nothing, "may not be NULL"), else_=fitting_sqlite.reason(column, value.text))
        declared = literal(column.declared)
        fits = func.coalesce(func.pg_input_is_valid(cast(value.text, Text), declared), literal(True))
        said = func.to_jsonb(func.pg_input_error_info(cast(value.text, Text), declared)).op("->>")("message")
        return case((nothing, "may not be NULL"), (~fits, said), else_=None)

    def _blamed(self, position: int, error: DBAPIError) -> Misfit:
        """Return what is wrong with the one row that `error` is about."""
        diagnosis = getattr(error.orig, "diag", None)
        if diagnosis is None:
            return Misfit(position, _short(str(error.orig)))
        name = diagnosis.column_name or self._column_to_blame(position, diagnosis.sqlstate)
        message = str(diagnosis.message_primary)
        if diagnosis.constraint_name and diagnosis.message_detail and self._dialect.failure(error) is not Failure.ROW:
            message += f" ({diagnosis.message_detail})"
        return Misfit(position, _short(message if name is None else f"column {name}: {message}"), name)

    def _column_to_blame(self, position: int, state: str | None) -> str | None:
        """Return the first column whose cast fails, or whose text is too long: PostgreSQL does not say which it was."""
        for value in self._values:
            chosen = select(value.cast("postgresql"), func.char_length(cast(value.text, Text))).where(
                self._staging.position == position
            )
            try:
                with self._connection.begin_nested():
                    _, length = self._connection.execute(chosen).one()
            except DBAPIError as error:
                if self._dialect.failure(error) is Failure.ROW:
                    return value.column.name
                raise
            limit = value.column.max_length
            if state == _TOO_LONG and limit is not None and length is not None and length > limit:
                return value.column.name
        return None

    def _knows_input_validity(self) -> bool:
        version: Any = self._connection.dialect.server_version_info
        return version is not None and version >= _KNOWS_INPUT_VALIDITY


def _short(reason: str) -> str:
    words = " ".join(reason.split())
    return words if len(words) <= _LONGEST_REASON else words[: _LONGEST_REASON - 1] + "…"
