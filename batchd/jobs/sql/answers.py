"""What a statement answered, small enough for a run's row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from sqlalchemy import CursorResult

from batchd.db.statements import Statement
from batchd.db.storable import storable_json
from batchd.domain.job import JsonObject

_LONGEST_CELL = 1_000
_MOST_COLUMNS = 100
_LONGEST_ANSWER = 200_000
_ROWS_AT_ONCE = 1_000
_LONGEST_TITLE = 100
_CHANGES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})
_ASKS = frozenset({"SELECT", "VALUES", "TABLE", "WITH"})
_LOCKING = frozenset({"FOR", "KEY"})
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Answer:
    """How many rows a statement changed or returned (None: neither), and the first of those it returned.

    A change of -1 rows is one of which the driver does not know how many.
    """

    changed: int | None
    returned: int | None
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def as_json(self) -> JsonObject:
        """Return the rows as the run's result keeps them."""
        columns = [str(column) for column in self.columns[:_MOST_COLUMNS]]
        rows: list[list[Any]] = []
        size = 0
        for row in self.rows:
            cells = [cell(value) for value in row[:_MOST_COLUMNS]]
            size += sum(len(str(each)) for each in cells)
            if size > _LONGEST_ANSWER:
                break  # a result that is too large for a run's row would be dropped as a whole
            rows.append(cells)
        shown: JsonObject = {"columns": list(columns), "rows": list(rows), "row_count": self.returned}
        return shown


def answer_of(result: CursorResult[Any], statement: Statement, *, most: int) -> Answer:
    """Read the statement's result to its end, for a function in it may have an effect for each row; keep the first."""
    is_change = changes(statement)
    if not result.returns_rows:
        return Answer(result.rowcount if is_change else None, None, (), ())
    columns = tuple(result.keys())
    kept: list[Sequence[Any]] = []
    count = 0
    while rows := result.fetchmany(_ROWS_AT_ONCE):
        count += len(rows)
        kept += [tuple(row) for row in rows[: most - len(kept)]]
    return Answer(count if is_change else None, count, columns, kept)


def can_stream(statement: Statement) -> bool:
    """Return whether the statement only asks, so that its rows may come through a cursor of the server."""
    return statement.first_word in _ASKS and not changes(statement) and "INTO" not in statement.words


def changes(statement: Statement) -> bool:
    """Return whether it changes rows: by its first word, or in a part of a WITH; FOR UPDATE only locks."""
    words = statement.words
    if statement.first_word == "WITH":
        return any(word in _CHANGES and before not in _LOCKING for before, word in pairwise(words))
    return statement.first_word in _CHANGES | {"REPLACE"}


def title(statement: Statement) -> str:
    """Return how the statement begins, on one line, for logs and results."""
    text = _SPACE.sub(" ", "".join(" " if token.kind == "comment" else token.text for token in statement.tokens))
    return text if len(text) <= _LONGEST_TITLE else f"{text[:_LONGEST_TITLE]} …"


def cell(value: Any) -> Any:
    """Return a value as JSON: numbers and texts as they are, moments in ISO 8601, bytes as hex; long ones cut."""
    if isinstance(value, bool | int | float | None):
        return storable_json(value)
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    text = bytes(value).hex() if isinstance(value, bytes | bytearray | memoryview) else storable_json(value)
    text = text if isinstance(text, str) else str(text)
    return text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]} …"
