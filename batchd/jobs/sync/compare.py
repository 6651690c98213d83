"""What it means that a row is that of a record, and that it differs from it: SQL expressions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, Table, Text, and_, cast, collate, false, literal, or_, true

from batchd.db.catalogue_facts import ColumnFacts
from batchd.db.types import SQLITE_TIMESTAMP, NamedType
from batchd.jobs.sync.plan import SyncPlan

_AS_DOCUMENT = {"json"}
_WITHOUT_EQUALITY = {"xml", "point", "polygon", "box", "circle", "lseg", "line", "path", "citext"}
_COLLATED = {"text", "character varying", "character", "name"}


def same_key(plan: SyncPlan, other: Table) -> ColumnElement[bool]:
    """Return whether the row of the target and that of the other table have the same key; never for a NULL."""
    return and_(*(plan.table.c[name] == other.c[name] for name in plan.fields.keys))


def key_columns(plan: SyncPlan, table: Table) -> list[ColumnElement[Any]]:
    """Return the key's columns of a table."""
    return [table.c[name] for name in plan.fields.keys]


def value_columns(plan: SyncPlan) -> list[ColumnFacts]:
    """Return the columns that a change sets: all but the key's."""
    return [column for column in plan.fields.columns if column.name not in plan.fields.keys]


def differs_in(plan: SyncPlan, column: ColumnFacts, other: Table) -> ColumnElement[bool]:
    """Return whether the column has another value, NULL being a value; exact to the last character."""
    return _comparable(plan, column, plan.table.c[column.name]).is_distinct_from(
        _comparable(plan, column, other.c[column.name])
    )


def is_marked(plan: SyncPlan) -> ColumnElement[bool]:
    """Return whether the row is marked as missing."""
    column = plan.missing_since
    if column is None:
        return false()
    here = plan.table.c[column.name]
    if not _is_boolean(column):
        return here.is_not(None)
    return here.is_(true()) if plan.facts.dialect == "postgresql" else and_(here.is_not(None), here != 0)


def differs(plan: SyncPlan, other: Table) -> ColumnElement[bool]:
    """Return whether a change of the row is due: a value differs, or it is marked as missing."""
    parts = [differs_in(plan, column, other) for column in value_columns(plan)]
    if plan.missing_since is not None:
        parts.append(is_marked(plan))
    return or_(false(), *parts)


def mark_of(plan: SyncPlan, column: ColumnFacts, moment: datetime) -> ColumnElement[Any]:
    """Return what a bookkeeping column gets for the moment."""
    is_postgresql = plan.facts.dialect == "postgresql"
    if _is_boolean(column):
        return true() if is_postgresql else literal(1, Integer())
    kind = column.type.lower()
    if "int" in kind or "numeric" in kind:
        return literal(int(moment.timestamp()))
    if is_postgresql:
        text = moment.astimezone(UTC).isoformat()
        # Without a zone the column holds UTC, like everything that batchd writes.
        text = text.removesuffix("+00:00") if "without" in kind or kind == "date" else text
        return cast(literal(text), NamedType(column.declared or column.type))
    written = moment.astimezone(UTC)
    return literal(written.date().isoformat() if kind == "date" else written.strftime(SQLITE_TIMESTAMP))


def unmarked(plan: SyncPlan, column: ColumnFacts) -> ColumnElement[Any]:
    """Return what `missing_since` holds in a row that is not missing."""
    if column.nullable or not _is_boolean(column):
        return literal(None)
    return false() if plan.facts.dialect == "postgresql" else literal(0, Integer())


def _comparable(plan: SyncPlan, column: ColumnFacts, value: ColumnElement[Any]) -> ColumnElement[Any]:
    kind = column.type.lower()
    if plan.facts.dialect == "sqlite":
        return collate(value, "BINARY")  # the column's own collation may say that upper and lower case are the same
    if kind in _AS_DOCUMENT:
        return cast(value, NamedType("jsonb"))
    if kind in _WITHOUT_EQUALITY:
        return cast(value, Text)
    return collate(value, "C") if kind in _COLLATED else value


def _is_boolean(column: ColumnFacts) -> bool:
    return "bool" in column.type.lower()
