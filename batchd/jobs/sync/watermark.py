"""How far an incremental sync has come: the latest moment of change that it has seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from batchd.jobs.sync.json_text import Digits

_MILLISECONDS_FROM = 100_000_000_000
"""A number from here on is milliseconds: as seconds it would be in the year 5138."""


def moment_of(value: Any) -> datetime | None:
    """Return the moment that a record says: ISO 8601, or seconds or milliseconds since 1970; None for anything else.

    Without an offset it counts as UTC.
    """
    try:
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if isinstance(value, Digits):
            return _of_number(Decimal(value))
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            return _of_number(Decimal(value))
    except (ValueError, OverflowError, InvalidOperation):
        pass
    return None


def written_moment(moment: datetime, form: Literal["iso", "date", "unix", "unix_ms"]) -> str:
    """Return the moment as the server wants it; never later than it is."""
    match form:
        case "iso":
            return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case "date":
            return moment.astimezone(UTC).date().isoformat()
        case "unix":
            return str(int(moment.timestamp()))
        case "unix_ms":
            return str(int(moment.timestamp() * 1000))


def _of_number(number: Decimal) -> datetime:
    seconds = number / 1000 if abs(number) >= _MILLISECONDS_FROM else number
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(seconds * 1_000_000))
