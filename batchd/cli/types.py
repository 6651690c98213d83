"""What people write on the command line, as values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from batchd.clock import SystemClock
from batchd.domain.job import JsonValue
from batchd.domain.quantities import parse_duration

_LARGEST_ID = 2**63 - 1
_FIRST_YEAR, _LAST_YEAR = 1970, 9000


class Duration(click.ParamType[timedelta]):
    """A length of time: "90s", "5m", "1d"."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration, or fail with advice."""
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Since(click.ParamType[datetime]):
    """A moment: how long ago ("90m", "1d"), or ISO 8601 ("2026-11-24", "2026-11-24T03:15+01:00"; local if bare)."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment, aware, in UTC."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        try:
            return SystemClock().now() - parse_duration(value)
        except (ValueError, OverflowError):
            self.fail(f'{value!r} is neither "1d" nor "2026-11-24T03:15"', param, ctx)


class IsoMoment(click.ParamType[datetime]):
    """ISO 8601; without an offset it stays naive, for the command knows whose local time is meant."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment, aware or naive as written."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f'{value!r} is not like "2026-11-24" or "2026-11-24T03:15"', param, ctx)
        if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:  # beyond them a zone's offset leads out of the calendar
            self.fail(f"{value!r} is not between the years {_FIRST_YEAR} and {_LAST_YEAR}", param, ctx)
        return moment


class RunId(click.ParamType[int]):
    """The number of a run, as `batchd runs` lists it."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail with advice; one that no store could hold is none."""
        try:
            number = int(value)
        except ValueError:
            number = 0
        if not 0 < number <= _LARGEST_ID:
            self.fail(f"{value!r} is not a run's number, such as 42; `batchd runs` lists them", param, ctx)
        return number


class IncidentId(click.ParamType[int]):
    """The number of an incident, as `batchd alerts` lists it."""

    name = "incident"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail with advice; one that no store could hold is none."""
        number = int(value) if str(value).isdecimal() else 0
        if not 0 < number <= _LARGEST_ID:
            self.fail(f"{value!r} is not an incident's number, such as 7; `batchd alerts` lists them", param, ctx)
        return number


class Override(click.ParamType[tuple[str, JsonValue]]):
    """KEY=VALUE; the value is JSON where it is JSON (true, 5, [1, 2], "5"), else the text as it stands."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, JsonValue]:
        """Return the key and the value."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text
