"""Types for the parameters of kinds, each parsed from what people write and described in the JSON Schema.

`Duration` accepts "30d", "5m", "1h30m"; `ByteSize` "64MB", "1GiB"; `Addresses` one mail address or a list of them;
`SqlName` is a table as SQL names it, `TimeZone` an IANA name, `NotBlank` a text with more than spaces; `Secret` is
never printed and never stored.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, SecretStr, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from batchd.db.identifiers import parse_name
from batchd.domain.quantities import format_duration, parse_duration, parse_size


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    return parse_duration(value)


def _size(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else parse_size(value)


def _name(value: str) -> str:
    parse_name(value)
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; leave it out")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f'unknown time zone {value!r}; write one such as "Europe/Berlin"') from error
    return value


class WrittenSchema(GenerateJsonSchema):
    """A JSON Schema whose defaults stand as people write them: "5s", where pydantic would say "PT5S"."""

    def encode_default(self, dft: Any) -> Any:
        """Return the default as the config has it."""
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["90s", "5m", "1h30m", "30d"], "x-batchd-type": "duration"}),
]

ByteSize = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["64MB", "1GiB"], "x-batchd-type": "size"}),
]

Addresses = Annotated[
    list[str],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]),
]

SqlName = Annotated[str, AfterValidator(_name)]
NotBlank = Annotated[str, AfterValidator(_not_blank)]
TimeZone = Annotated[str, AfterValidator(_zone)]

Secret = SecretStr
