"""Params with places to fill in: `{ user_id = "{id}", subject = "Hello {name}", note = "{{as it stands}}" }`.

A text that is one place and nothing else becomes the value itself, with its type; a place within a text becomes part of
it. Braces that are meant as such are doubled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from batchd.domain.job import JsonValue

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def filled(template: JsonValue, values: Mapping[str, Any]) -> Any:
    """Return the template with its places filled in; raises KeyError for a place that `values` does not have."""
    if isinstance(template, dict):
        return {key: filled(inner, values) for key, inner in template.items()}
    if isinstance(template, list):
        return [filled(inner, values) for inner in template]
    if not isinstance(template, str):
        return template
    whole = _PLACE.fullmatch(template)
    if whole is not None and whole[1] is not None:
        return plain(values[whole[1]])
    return _PLACE.sub(lambda match: _one(match, values), template)


def places(template: JsonValue) -> Iterator[str]:
    """Yield the names of the places; raises ValueError for a single brace."""
    if isinstance(template, dict):
        template = list(template.values())
    if isinstance(template, list):
        for inner in template:
            yield from places(inner)
    elif isinstance(template, str):
        for match in _PLACE.finditer(template):
            if match[1] is not None:
                yield match[1]
            elif len(match[0]) == 1:
                raise ValueError(f"{template!r} has a single {match[0]}; double a brace that is meant as such")


def plain(value: Any) -> JsonValue:
    """Return a database's value as JSON has it: moments and numbers that JSON cannot hold exactly as text."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes() | memoryview():
            return bytes(value).hex()
        case Decimal() | UUID():
            return str(value)
    return str(value)


def _one(match: re.Match[str], values: Mapping[str, Any]) -> str:
    name = match[1]
    if name is None:
        return match[0][0]
    value = plain(values[name])
    return "" if value is None else str(value)
