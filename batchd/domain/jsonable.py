"""Any value of the rooms as JSON has it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

_AS_IT_IS = frozenset({str, int, float, bool, type(None)})


def jsonable(value: object) -> Any:
    """Return the value as JSON has it: moments as ISO 8601 in UTC, durations in seconds, dataclasses as objects."""
    if type(value) in _AS_IT_IS:
        return value  # most are, and a match asks each case
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case enum.Enum():
            return value.value
        case Mapping():
            return {str(key): jsonable(part) for key, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(part) for part in value]
        case None | bool() | int() | float() | str():
            return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return str(value)
