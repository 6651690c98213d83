"""/healthz and /readyz: open to everybody, so they say nothing but yes or no; whoever may read is told why."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response

from batchd.web.call import Call, Endpoint
from batchd.web.principal import Access


async def healthz(call: Call) -> Response:
    """Say that the server answers."""
    return call.json({"status": "alive"})


async def readyz(call: Call) -> Response:
    """Say whether runs are planned and executed: 200, or 503 when anything has stopped."""
    checks = call.desk.health.checks()
    is_ready = all(check.ok for check in checks)
    said: dict[str, object] = {"status": "ready" if is_ready else "not ready"}
    if call.principal.may(Access.VIEWER):
        said["checks"] = checks
    return call.json(said, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    return [
        Endpoint("GET", "/healthz", healthz, Access.PUBLIC, "Whether the server answers"),
        Endpoint("GET", "/readyz", readyz, Access.PUBLIC, "Whether runs are planned and executed"),
    ]
