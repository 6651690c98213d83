"""The JSON Schema of what the API answers: frozen dataclasses, as `jsonable` writes them."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Union, get_args, get_origin, get_type_hints

REF = "#/components/schemas/{model}"

_ANY_JSON = {"JsonObject": dict[str, Any], "JsonValue": Any}
"""Names that refer to themselves; what a job put there is any JSON."""

_PLAIN: Mapping[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    datetime: {"type": "string", "format": "date-time"},
    type(None): {"type": "null"},
}


def reference(model: type[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to the model's schema, which is put among the schemas, with those that it needs."""
    name = model.__name__
    if name not in schemas:
        schemas[name] = {}
        hints = get_type_hints(model, localns=_ANY_JSON)
        fields = [field.name for field in dataclasses.fields(model)]
        schemas[name] = {
            "type": "object",
            "description": " ".join((model.__doc__ or "").split()),
            "properties": {field: _schema(hints[field], schemas) for field in fields},
            "required": fields,
            "additionalProperties": False,
        }
    return {"$ref": REF.format(model=name)}


def _schema(annotation: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if annotation in _PLAIN:
        return dict(_PLAIN[annotation])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, types.UnionType}:
        return {"anyOf": [_schema(each, schemas) for each in arguments]}
    if origin in {list, tuple}:
        return {"type": "array", "items": _schema(arguments[0], schemas)}
    if origin in {dict, Mapping}:
        values = _PLAIN.get(arguments[1], {})
        return {"type": "object", "additionalProperties": dict(values) or True}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {"type": "string", "enum": [word.value for word in annotation]}
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return reference(annotation, schemas)
    raise TypeError(f"the API answers with a {annotation!r}, and nothing here knows its schema")
