"""Rows as frozen values: a view is a dataclass whose fields are named as the columns that they hold."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Table

T = TypeVar("T")


def columns_of(view: type[Any], table: Table) -> list[Any]:
    """Return the columns that the view's fields are named after, in their order."""
    return [table.c[field.name] for field in dataclasses.fields(view)]


def all_of(connection: Connection, statement: Select[Any], view: type[T]) -> tuple[T, ...]:
    """Return every row of the statement as a view."""
    return tuple(view(**row) for row in connection.execute(statement).mappings())
