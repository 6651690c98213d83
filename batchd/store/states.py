"""The states of runs as conditions of statements."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, literal_column

from batchd.domain.run import RunState
from batchd.store.schema import runs


def is_state(*states: RunState, of: Any = runs) -> ColumnElement[bool]:
    """Return the condition that the run is in one of the states, which stand in the statement and are no parameters.

    Only so is it plain, whatever the parameters are, that the statement asks for no more than a partial index has. With
    parameters SQLite goes through all runs of a job instead (`IN`), or plans the statement anew each time (`=`).
    """
    written: list[ColumnElement[Any]] = [literal_column(f"'{state.value}'") for state in states]
    column: ColumnElement[Any] = of.c.state
    return column == written[0] if len(written) == 1 else column.in_(written)
