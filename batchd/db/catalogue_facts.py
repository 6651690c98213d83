"""What both catalogues answer with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Located:
    """A table that exists; `oid` is PostgreSQL's."""

    schema: str | None
    name: str
    oid: int


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """A column; `type` is its base type as a CAST would name it on PostgreSQL, the declared one on SQLite."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """A complete, usable, ordered index (not partial); `columns` holds no expression."""

    columns: tuple[str, ...]
    unique: bool
    primary: bool
