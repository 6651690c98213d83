"""The JSON Schema of the config, for editors: completion, descriptions and unknown keys while one types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchd.alerts.catalog import channel_types
from batchd.config.alert_settings import ChannelSection
from batchd.config.alerts import secret_fields as channel_secrets
from batchd.config.jobs import secret_fields
from batchd.config.settings import JobSettings, Settings
from batchd.domain.job import JsonObject
from batchd.jobs import catalog
from batchd.jobs.contract import Kind
from batchd.jobs.params import WrittenSchema

_REFERENCE = "#/$defs/{model}"
_WRITTEN_BARE = ("integer", "number", "boolean")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def json_schema(kinds: Mapping[str, Kind[Any]] | None = None) -> JsonObject:
    """Return a JSON Schema (draft 2020-12) of the whole config, with the params of every kind."""
    known = catalog.kinds() if kinds is None else kinds
    schema = Settings.model_json_schema(ref_template=_REFERENCE, schema_generator=WrittenSchema)
    definitions: dict[str, Any] = schema.pop("$defs", {})
    shared = JobSettings.model_json_schema(ref_template=_REFERENCE, schema_generator=WrittenSchema)
    definitions |= shared.pop("$defs", {})
    shared["additionalProperties"] = False
    jobs = []
    for name, kind in sorted(known.items()):
        params = kind.params.model_json_schema(ref_template=_REFERENCE, schema_generator=WrittenSchema)
        definitions |= params.pop("$defs", {})
        definitions[f"job_{name}"] = {
            "title": f"{name}: {kind.summary}",
            "type": "object",
            "properties": {
                "kind": {"const": name, "description": kind.summary},
                **shared["properties"],
                **_params(kind, params),
            },
            "required": ["kind", *(key for key in params.get("required", []) if key not in secret_fields(kind))],
            "additionalProperties": False,
        }
        jobs.append({"$ref": f"#/$defs/job_{name}"})
    definitions["AlertsSection"]["properties"]["channels"] = _channels(definitions)
    _let_variables_stand(definitions)
    _let_variables_stand(shared)
    schema["properties"]["defaults"] = shared
    schema["properties"]["jobs"] = {
        "type": "object",
        "description": "One table a job.",
        "additionalProperties": {"oneOf": jobs},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "batchd",
        "description": "The config of batchd: one file, one daemon.",
        "$defs": definitions,
    }


def _channels(definitions: dict[str, Any]) -> JsonObject:
    """Return the schema of `[alerts.channels]`; what its types refer to goes into the definitions."""
    common = ChannelSection.model_json_schema(ref_template=_REFERENCE, schema_generator=WrittenSchema)["properties"]
    kinds: list[Any] = []
    for name, each in channel_types().items():
        if each.is_per_job:
            continue
        own = each.settings.model_json_schema(ref_template=_REFERENCE, schema_generator=WrittenSchema)
        definitions |= own.pop("$defs", {})
        secrets = channel_secrets(each)
        files = {
            f"{key}_file": {"type": "string", "description": f"File that holds `{key}`, instead of `{key}`."}
            for key in sorted(secrets)
        }
        definitions[f"channel_{name}"] = {
            "title": f"{name}: {each.summary}",
            "type": "object",
            "properties": {
                **common,
                "type": {"const": name, "description": each.summary},
                **own["properties"],
                **files,
            },
            "required": ["type", *(key for key in own.get("required", []) if key not in secrets)],
            "additionalProperties": False,
        }
        kinds.append({"$ref": f"#/$defs/channel_{name}"})
    return {"type": "object", "description": "One table a channel.", "additionalProperties": {"oneOf": kinds}}


def _let_variables_stand(schema: Any) -> None:
    """Let "${NAME}" stand for every number and truth value, as batchd does."""
    if isinstance(schema, list):
        for each in schema:
            _let_variables_stand(each)
    elif isinstance(schema, dict):
        if schema.get("type") in _WRITTEN_BARE:
            bare = {key: schema.pop(key) for key in ("type", *_BOUNDS) if key in schema}
            schema["anyOf"] = [bare, {"type": "string", "pattern": r"\$\{"}]
            return
        for each in schema.values():
            _let_variables_stand(each)


def _params(kind: Kind[Any], schema: Mapping[str, Any]) -> JsonObject:
    """Return the kind's own keys, and for each secret the key that names its file."""
    own: JsonObject = dict(schema.get("properties", {}))
    for name in secret_fields(kind):
        own[f"{name}_file"] = {"type": "string", "description": f"File that holds `{name}`, instead of `{name}`."}
    return own
