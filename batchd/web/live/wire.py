"""Writes to one client, with a bound on how long it may take to read: a client that does not is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from batchd.clock import Clock

_AT_ONCE = 64 * 1024
_ABORT = "batchd.abort"


class ClientStuck(Exception):
    """The client has read nothing for too long."""


class Wire:
    """One response. Its connection is closed at once, unsent bytes and all, when the client does not read."""

    def __init__(self, scope: Scope, send: Send, clock: Clock, patience: timedelta) -> None:
        self.wrote_at = clock.monotonic()
        self._abort: Callable[[], None] | None = scope.get(_ABORT)
        self._send = send
        self._clock = clock
        self._patience = patience.total_seconds()

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the head."""
        await self._patiently({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, parts: Iterable[bytes]) -> None:
        """Send the parts, many at once but not too much; raises ClientStuck."""
        gathered: list[bytes] = []
        size = 0
        for part in parts:
            gathered.append(part)
            size += len(part)
            if size >= _AT_ONCE:
                await self._body(b"".join(gathered))
                gathered, size = [], 0
        if gathered:
            await self._body(b"".join(gathered))

    async def end(self) -> None:
        """Say that it is all; a client that does not read does not hold this up."""
        try:
            async with asyncio.timeout(1):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._abort is not None:
            self._abort()

    async def _body(self, content: bytes) -> None:
        await self._patiently({"type": "http.response.body", "body": content, "more_body": True})
        self.wrote_at = self._clock.monotonic()

    async def _patiently(self, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._send(message)
        except TimeoutError as error:
            raise ClientStuck from error


class Abortable:
    """The outermost layer: lets what lies within close a client's connection at once (uvicorn offers no other way)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        abort = getattr(transport, "abort", None)
        if scope["type"] == "http" and callable(abort):
            scope[_ABORT] = abort
        await self._app(scope, receive, send)


async def until_gone(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
