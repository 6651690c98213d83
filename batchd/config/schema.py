"""The JSON Schema of the config, for editors: completion, descriptions and unknown keys while one types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchd.config.settings import JobSettings, Settings
from batchd.domain.job import JsonObject
from batchd.jobs import catalog
from batchd.jobs.contract import Kind


def json_schema(kinds: Mapping[str, Kind[Any]] | None = None) -> JsonObject:
    """Return a JSON Schema (draft 2020-12) of the whole config, with the params of every kind."""
    known = catalog.kinds() if kinds is None else kinds
    schema = Settings.model_json_schema(ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = schema.pop("$defs", {})
    shared = JobSettings.model_json_schema(ref_template="#/$defs/{model}")
    definitions |= shared.pop("$defs", {})
    shared["additionalProperties"] = False
    jobs = []
    for name, kind in sorted(known.items()):
        params = kind.params.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= params.pop("$defs", {})
        definitions[f"job_{name}"] = {
            "title": f"{name}: {kind.summary}",
            "type": "object",
            "properties": {
                "kind": {"const": name, "description": kind.summary},
                **shared["properties"],
                **params.get("properties", {}),
            },
            "patternProperties": {"_file$": {"type": "string", "description": "File that holds the secret."}},
            "required": ["kind", *params.get("required", [])],
            "additionalProperties": False,
        }
        jobs.append({"$ref": f"#/$defs/job_{name}"})
    schema["properties"]["defaults"] = shared
    schema["properties"]["jobs"] = {
        "type": "object",
        "description": "One table a job.",
        "additionalProperties": {"oneOf": jobs},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "batchd",
        **schema,
        "$defs": definitions,
    }
