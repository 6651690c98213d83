"""A client that calls an ASGI application in this process: no socket, no server, every layer of the application."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2


class InProcess:
    """Sends requests to the application, one after the other; redirects and cookies are not followed."""

    def __init__(self, app: Any, address: str = "127.0.0.1") -> None:
        self._runner = asyncio.Runner()
        self._client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app, client=(address, 50_000), raise_app_exceptions=True),
            base_url="http://localhost:8787",
            cookies=httpx2.Cookies(),
        )

    def request(self, method: str, path: str, **sent: Any) -> httpx2.Response:
        """Send one request and return the whole answer."""
        self._client.cookies.clear()
        return self._runner.run(self._client.request(method, path, **sent))

    def close(self) -> None:
        """End the event loop."""
        self._runner.run(self._client.aclose())
        self._runner.close()
