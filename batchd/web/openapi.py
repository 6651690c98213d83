"""The OpenAPI 3.1 document, made from the routes and their models: `python -m batchd.web.openapi > …/openapi.json`.

It is made when batchd is released, not when it runs: building it takes memory that no daemon should spend. A test
compares the file with the routes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from batchd import __version__
from batchd.web.app import all_endpoints
from batchd.web.call import Endpoint
from batchd.web.json_schema import REF, reference
from batchd.web.principal import Access
from batchd.web.problems import MEDIA_TYPE

FILE = Path(__file__).parent / "openapi.json"

_PARAMETER = re.compile(r"\{([a-z_]+)\}")
_ALWAYS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_WITHOUT_JSON = frozenset({204, 206, 304, 412, 416})
_TAGS = {
    "events": "What happens, as it happens",
    "exports": "Files of rows",
    "jobs": "What runs, when, and now",
    "runs": "The ledger",
    "queues": "What waits",
    "incidents": "What is wrong",
    "cron": "For platforms that call a route on a schedule",
    "service": "The daemons, and who did what",
}
_PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "description": "urn:batchd:problem: and the code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "A word for programs."},
        "detail": {"type": "string", "description": "A sentence for people."},
        "hint": {"type": "string", "description": "What to do."},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
    "additionalProperties": True,
}


def document() -> dict[str, Any]:
    """Return the document."""
    schemas: dict[str, Any] = {"Problem": dict(_PROBLEM)}
    paths: dict[str, Any] = {}
    for endpoint in sorted(all_endpoints(), key=lambda each: (each.path, each.method)):
        if endpoint.document is not None:
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "batchd",
            "version": __version__,
            "description": "Batch jobs on a SQL database: look at them, run them, pause them.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": meaning} for name, meaning in _TAGS.items()],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`batchd token create`"},
                "cronSecret": {"type": "http", "scheme": "bearer", "description": "`[http] cron_secret`"},
            },
        },
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    said = endpoint.document
    assert said is not None
    operation: dict[str, Any] = {
        "operationId": _identifier(endpoint),
        "summary": endpoint.summary,
        "description": (endpoint.handler.__doc__ or "").strip(),
        "tags": [said.tag],
        "parameters": [*_path_parameters(endpoint), *_query_parameters(said.query, schemas), *_headers(endpoint)],
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.access is Access.PUBLIC:
        operation["security"] = []
    if endpoint.access is Access.CRON:
        operation["security"] = [{"cronSecret": []}, {"token": []}]
    if said.body is not None:
        is_required = any(field.is_required() for field in said.body.model_fields.values())
        schema = _asked(said.body, schemas)
        operation["requestBody"] = {"required": is_required, "content": {"application/json": {"schema": schema}}}
    return operation


def _identifier(endpoint: Endpoint) -> str:
    parts = [part.strip("{}") for part in endpoint.path.removeprefix("/api/").removeprefix("v1/").split("/")]
    return "_".join([endpoint.method.lower(), *parts])


def _responses(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    said = endpoint.document
    assert said is not None
    answer: dict[str, Any] = {"description": endpoint.summary}
    if said.answer is not None:
        answer["content"] = {said.media_type: {"schema": _answered(said.answer, schemas)}}
    responses = {str(int(said.success)): answer}
    for status in sorted({*map(int, said.problems), *map(int, _ALWAYS), *_refusals(endpoint)}):
        responses[str(status)] = _problem(status, schemas)
    return responses


def _answered(model: type[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    if model in {str, bytes}:
        return {"type": "string", **({"format": "binary"} if model is bytes else {})}
    return reference(model, schemas)


def _refusals(endpoint: Endpoint) -> Iterator[int]:
    if endpoint.access is not Access.PUBLIC:
        yield from (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    said = endpoint.document
    if endpoint.method != "GET":
        yield HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if said is not None and said.body is not None:
        yield from (HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY)
    if said is not None and said.idempotent:
        yield HTTPStatus.UNPROCESSABLE_ENTITY


def _problem(status: int, schemas: dict[str, Any]) -> dict[str, Any]:
    if status in _WITHOUT_JSON:
        return {"description": HTTPStatus(status).phrase}
    if status < HTTPStatus.BAD_REQUEST:
        from batchd.web.shapes import Queued  # noqa: PLC0415 (only /api/cron has such an answer)

        schema = reference(Queued, schemas)
        return {"description": HTTPStatus(status).phrase, "content": {"application/json": {"schema": schema}}}
    content = {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
            if name.endswith("_id")
            else {"type": "string", "minLength": 1},
        }
        for name in _PARAMETER.findall(endpoint.path)
    ]


def _query_parameters(query: type[BaseModel] | None, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    if query is None:
        return []
    described = query.model_json_schema(ref_template=REF)
    schemas |= described.get("$defs", {})
    return [
        {"name": name, "in": "query", "required": False, "description": schema.pop("description", ""), "schema": schema}
        for name, schema in described.get("properties", {}).items()
    ]


def _headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    said = endpoint.document
    found = []
    if said is not None and said.idempotent:
        key = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"}
        told = "A request with the same key, within a day, is answered as the first one was and does nothing."
        found.append({"name": "Idempotency-Key", "in": "header", "required": False, "description": told, "schema": key})
    if endpoint.access is Access.CRON:
        told = "`respond-async` waits for nothing, `wait=30` for thirty seconds."
        found.append(
            {"name": "Prefer", "in": "header", "required": False, "description": told, "schema": {"type": "string"}}
        )
    return found


def _asked(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    described = model.model_json_schema(ref_template=REF)
    schemas |= described.pop("$defs", {})
    schemas[model.__name__] = described
    return {"$ref": REF.format(model=model.__name__)}


def text() -> str:
    """Return the document as the file holds it."""
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    print(text(), end="")  # noqa: T201 (the program's whole purpose)
