"""Reads moments of PostgreSQL that Python's calendar does not have: `infinity`, years before 1 and after 9999.

Somebody with psql can write them into batchd's tables, and a row that cannot be read holds up all that are read with
it: every claim, every list.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader

EARLIEST = datetime(1, 1, 3, tzinfo=UTC)
LATEST = datetime(9999, 12, 29, tzinfo=UTC)
"""A day and more from the calendar's ends, so that every time zone has them."""

_TYPE = "timestamptz"


def read_any_moment(connection: psycopg.Connection[Any]) -> None:
    """Have the connection read them as the ends of the calendar."""
    connection.adapters.register_loader(_TYPE, _AnyMomentLoader)


class _AnyMomentLoader(Loader):
    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        known = psycopg.adapters.get_loader(psycopg.adapters.types[_TYPE].oid, self.format)
        assert known
        self._load = known(oid, context).load

    def load(self, data: Buffer) -> datetime:
        """Return the moment, or the end of the calendar that it lies beyond."""
        try:
            moment: datetime = self._load(data)
        except psycopg.DataError:
            return _beyond(bytes(data).decode())
        return min(max(moment, EARLIEST), LATEST)


def moment_of(written: str) -> datetime:
    """Return the moment that PostgreSQL wrote into a JSON document, or the end of the calendar that it lies beyond."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return _beyond(written)
    return min(max(moment, EARLIEST), LATEST)


def _beyond(written: str) -> datetime:
    return EARLIEST if written.startswith("-") or written.endswith("BC") else LATEST
