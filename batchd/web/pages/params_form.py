"""A form for a kind's params, made from its model, and what was written into it as values."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from batchd.domain.job import CONFIG_REFERENCE, JsonObject, JsonValue
from batchd.jobs.contract import Kind
from batchd.jobs.params import WrittenSchema
from batchd.web.pages.config_lines import without_references
from batchd.web.pages.words import one_line_json

PREFIX = "param."
"""What the names of the form's fields begin with."""

_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Field:
    """One param. `sort`: flag, number, long (JSON), text; `shown`: what the config says; `value`: what was written."""

    name: str
    sort: str
    help: str
    shown: str
    choices: tuple[str, ...] = ()
    value: str = ""


def fields_of(kind: Kind[Any], configured: Mapping[str, JsonValue], written: Mapping[str, str]) -> list[Field]:
    """Return as fields the kind's params that a run from here may be given; never a secret."""
    model: type[BaseModel] = kind.params
    schema = _schema(model)
    definitions = schema.get("$defs", {})
    found = []
    for name, described in schema.get("properties", {}).items():
        if name not in kind.adjustable:
            continue
        options = _options(described, definitions)
        if any(option.get("writeOnly") or option.get("format") == "password" for option in [described, *options]):
            continue
        if configured.get(name) == CONFIG_REFERENCE:
            continue
        found.append(
            Field(
                name=name,
                sort=_sort(options),
                help=str(described.get("description", "")),
                shown=_shown(configured.get(name, described.get("default"))),
                choices=_choices(options),
                value=written.get(name, ""),
            )
        )
    return found


def written_params(form: Mapping[str, str]) -> dict[str, str]:
    """Return what was written into the form's fields, without those left empty."""
    return {
        name.removeprefix(PREFIX): value.strip()
        for name, value in form.items()
        if name.startswith(PREFIX) and value.strip()
    }


def param_values(written: Mapping[str, str]) -> JsonObject:
    """Return the values: JSON where it is JSON (true, 5, [1, 2]), else text, as `batchd trigger --param` has it."""
    return {name: _value(text) for name, text in written.items()}


@functools.lru_cache(maxsize=100)
def _schema(params: type[BaseModel]) -> Mapping[str, Any]:
    return params.model_json_schema(schema_generator=WrittenSchema)


def _value(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return text
    return value


def _refused(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _options(described: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the param may be, null left out, references followed."""
    listed = described.get("anyOf") or described.get("allOf") or [described]
    followed = [
        definitions.get(str(option["$ref"]).rpartition("/")[2], {}) if "$ref" in option else option for option in listed
    ]
    return [option for option in followed if option.get("type") != "null"]


def _sort(options: list[Mapping[str, Any]]) -> str:
    types = {str(option.get("type", "object")) for option in options}
    if types == {"boolean"}:
        return "flag"
    if types <= {"integer", "number"}:
        return "number"
    return "long" if types & {"object", "array"} else "text"


def _choices(options: list[Mapping[str, Any]]) -> tuple[str, ...]:
    listed = [value for option in options for value in option.get("enum", ())]
    return tuple(str(value) for value in listed if isinstance(value, str))


def _shown(value: object) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else one_line_json(without_references(value))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
