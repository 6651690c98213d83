"""The OpenAPI document."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response

from batchd.web.call import Call, Endpoint
from batchd.web.principal import Access

_FILE = Path(__file__).parents[1] / "openapi.json"


async def openapi(call: Call) -> Response:
    """Show the OpenAPI document of this version."""
    content = await call.desk.in_thread(_FILE.read_bytes)
    return Response(content, media_type="application/json")


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    return [Endpoint("GET", "/api/v1/openapi.json", openapi, Access.PUBLIC, "The OpenAPI document")]
