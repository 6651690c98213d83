"""What every request passes before the router, whatever it asks for: pure ASGI, so that streams flow through."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers as RequestHeaders
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchd.domain.surface import HttpSettings, host_of
from batchd.web.problems import Problem

LARGEST_HEAD = 16_384
"""Bytes of all headers. h11 has the same limit for a head that comes in parts."""

UNIX = "unix"
"""The address of whoever comes through a Unix socket."""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_ALWAYS: Mapping[str, str] = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Headers:
    """Puts the security headers on every answer, and `no-store` where nothing else is said."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-cache" if scope["path"].startswith("/static/") else "no-store")
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)


class HostCheck:
    """Refuses requests that are addressed to another host: a name that somebody made point here (DNS rebinding)."""

    def __init__(self, app: ASGIApp, settings: Callable[[], HttpSettings]) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421."""
        if scope["type"] != "http":
            return  # no web sockets here
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) == 1 and host_of(hosts[0].decode("latin-1")) in self._settings().hosts:
            await self._app(scope, receive, send)
            return
        problem = Problem(
            HTTPStatus.MISDIRECTED_REQUEST,
            "wrong_host",
            "this is not a host that batchd answers for",
            hint="add it to [http] hosts, or set public_url",
        )
        await problem.response()(scope, receive, send)


class SizeLimit:
    """Refuses heads and bodies that are too large, by what they say and by what they are.

    And a body whose size is told twice: a proxy may have understood the other one (request smuggling).
    """

    def __init__(self, app: ASGIApp, settings: Callable[[], HttpSettings]) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400, 413 or 431."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > LARGEST_HEAD:
            await _closing(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a head has at most 16 kB here")(
                scope, receive, send
            )
            return
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            await _closing(HTTPStatus.BAD_REQUEST, "a body has one size")(scope, receive, send)
            return
        largest = self._settings().largest_body
        told = RequestHeaders(scope=scope).get("content-length", "0")
        if not (told.isascii() and told.isdigit()) or int(told[:20]) > largest:
            await _too_large(largest).response()(scope, receive, send)
            return
        seen = 0

        async def receiving() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > largest:
                raise _too_large(largest)
            return message

        await self._app(scope, receiving, send)


def _closing(status: HTTPStatus, said: str) -> Response:
    """Return an answer behind which nothing more is read from the connection."""
    return Problem(status, status.name.lower(), said, headers={"Connection": "close"}).response()


def _too_large(largest: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"a body has at most {largest} bytes here")


def address_of(request: Request, trusted: frozenset[str]) -> str:
    """Return the client's address: the connection's, or what a trusted proxy says in X-Forwarded-For.

    The header is read from its end: everything before the first address that is no trusted proxy's can be made up.
    """
    client: Any = request.client
    address = client.host if client and client.host else UNIX
    if address not in trusted:
        return address
    for hop in reversed(request.headers.get("x-forwarded-for", "").split(",")):
        told = hop.strip()
        if not _is_address(told):
            return address
        address = told
        if address not in trusted:
            break
    return address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
