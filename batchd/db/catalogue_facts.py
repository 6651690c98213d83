"""What both catalogues answer with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Located:
    """A table that exists; `oid` is PostgreSQL's."""

    schema: str | None
    name: str
    oid: int
    is_partitioned: bool = False


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """A column; `type` is its base type as a CAST would name it on PostgreSQL, the declared one on SQLite.

    `declared` is the type with its length and precision, a domain by its own name; `max_length` counts characters.
    `fills_itself` says that an INSERT may leave the column out although it is not nullable: a default, an identity, a
    generated column, SQLite's integer key. `is_writable` is False for a column that no INSERT may name.
    """

    name: str
    type: str
    nullable: bool
    declared: str = ""
    default: str | None = None
    max_length: int | None = None
    fills_itself: bool = False
    is_writable: bool = True


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """A complete, usable, ordered index (not partial); `columns` holds no expression.

    `immediate` is False for a constraint that is checked at the commit: ON CONFLICT cannot name it.
    """

    columns: tuple[str, ...]
    unique: bool
    primary: bool
    immediate: bool = True
