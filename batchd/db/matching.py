"""Conditions on columns from values that may come from anywhere: they are bound and compared by the column's type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, and_, or_, true

from batchd.db.keys import Carrier

Scalar: TypeAlias = "bool | int | float | str"
Match: TypeAlias = "Scalar | list[Scalar] | dict[str, Scalar] | None"
"""A value, one of several, a range (`from`: at least, `before`: less than), or None for NULL."""

RANGE = ("from", "before")


def matching(carriers: Mapping[str, Carrier], wanted: Mapping[str, Match]) -> ColumnElement[bool]:
    """Return the condition that each of the columns is as wanted; true when nothing is."""
    return and_(true(), *(_one(carriers[name], match) for name, match in wanted.items()))


def _one(carrier: Carrier, match: Match) -> ColumnElement[bool]:
    column = carrier.expression
    if match is None:
        return column.is_(None)
    if isinstance(match, list):
        return or_(*(column == _bound(carrier, value) for value in match))
    if isinstance(match, dict):
        edges: dict[str, Callable[[Any], ColumnElement[bool]]] = {"from": column.__ge__, "before": column.__lt__}
        return and_(*(edges[edge](_bound(carrier, value)) for edge, value in match.items()))
    equal: ColumnElement[bool] = column == _bound(carrier, match)
    return equal


def _bound(carrier: Carrier, value: Scalar) -> ColumnElement[Any]:
    if isinstance(value, bool) and carrier.is_text_bound:
        return carrier.bind("true" if value else "false")
    return carrier.bind(int(value) if isinstance(value, bool) else value)
