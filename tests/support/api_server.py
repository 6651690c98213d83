"""A real HTTP API on loopback, with every fault that a server, a proxy or a line can have.

    with api_server() as api:
        api.records = [{"id": 1, "name": "a"}, ...]
        api.script(Reply(status=503), None)      # the first request fails, the second is answered as it should be

Routes: `/all` a JSON array · `/wrapped` `{"data": {"items": [...]}}` · `/ndjson` · `/pages?page&per_page` ·
`/offset?offset&limit` · `/cursor?cursor` · `/next?after` · `/link?page`. `updated_since` and `etag` work on each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    at: float
    method: str = "GET"
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    """What the server sends. `announced` is the Content-Length that it claims; `sent` how many bytes it really sends.

    `is_unbounded` sends no length at all and ends by closing; `is_reset` breaks the connection instead of closing it.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    announced: int | None = None
    sent: int | None = None
    is_unbounded: bool = False
    is_reset: bool = False


def as_json(document: Any, **headers: str) -> Reply:
    """A JSON answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(body=json.dumps(document).encode(), headers={"Content-Type": "application/json"} | named)


@dataclass
class Api:
    """The server's state; change it between requests."""

    url: str
    records: list[Any] = field(default_factory=list)
    page_size: int = 10
    etag: bool = False
    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Reply | None] | None = None
    scripted: deque[Reply | None] = field(default_factory=deque)

    def script(self, *replies: Reply | None) -> None:
        """Answer the next requests so, one each; None is the usual answer."""
        self.scripted.extend(replies)

    def reply_to(self, request: Request) -> Reply:
        """What the request is answered with."""
        self.requests.append(request)
        if self.scripted:
            scripted = self.scripted.popleft()
            if scripted is not None:
                return scripted
        if self.answer is not None:
            found = self.answer(request)
            if found is not None:
                return found
        return self.usual(request)

    def usual(self, request: Request) -> Reply:
        """The answer of a server that works."""
        since = request.query.get("updated_since")
        chosen = [record for record in self.records if since is None or str(record.get("updated_at", "")) >= since]
        reply = self._page(request, chosen)
        if self.etag:
            tag = '"' + hashlib.sha256(reply.body).hexdigest()[:12] + '"'
            if request.headers.get("If-None-Match") == tag:
                return Reply(status=304, headers={"ETag": tag})
            reply = Reply(body=reply.body, headers={**reply.headers, "ETag": tag})
        return reply

    def _page(self, request: Request, chosen: list[Any]) -> Reply:
        query, total = request.query, len(chosen)
        match request.path:
            case "/all":
                return as_json(chosen)
            case "/wrapped":
                return as_json({"data": {"items": chosen}, "total": total})
            case "/ndjson":
                lines = "".join(json.dumps(record) + "\n" for record in chosen)
                return Reply(body=lines.encode(), headers={"Content-Type": "application/x-ndjson"})
            case "/pages":
                size = int(query.get("per_page", self.page_size))
                start = (int(query.get("page", "1")) - 1) * size
                pages = -(-total // size)
                return as_json({"items": chosen[start : start + size], "total": total, "pages": pages})
            case "/offset":
                start, size = int(query.get("offset", "0")), int(query.get("limit", self.page_size))
                return as_json({"items": chosen[start : start + size], "total": total})
            case "/cursor":
                start = int(query.get("cursor", "0"))
                after = start + self.page_size
                return as_json({"items": chosen[start:after], "next_cursor": after if after < total else None})
            case "/next":
                start = int(query.get("after", "0"))
                after = start + self.page_size
                follows = f"/next?after={after}" + (f"&key={query['key']}" if "key" in query else "")
                return as_json({"items": chosen[start:after], "next": follows if after < total else None})
            case "/link":
                page = int(query.get("page", "1"))
                after = page * self.page_size
                follows = f'<{self.url}/link?page={page + 1}>; rel="next"' if after < total else ""
                return as_json(chosen[after - self.page_size : after], Link=follows)
        return Reply(404, b'{"error": "no such route"}')


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 100

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    api: ClassVar[Api]
    ended: ClassVar[threading.Event]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items())
        reply = self.api.reply_to(Request(parts.path, query, headers, time.monotonic(), self.command, body))
        if reply.delay:
            self.ended.wait(reply.delay)
        self._send(reply)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (the library's names)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            if value:
                self.send_header(name, value)
        if reply.is_unbounded:
            self.send_header("Connection", "close")
            self.close_connection = True
        elif reply.status != 304:
            length = len(reply.body) if reply.announced is None else reply.announced
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(reply.body if reply.sent is None else reply.body[: reply.sent])
        self.wfile.flush()
        if reply.sent is not None or reply.announced is not None:
            self.close_connection = True
        if reply.is_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
        """Say nothing."""


@contextmanager
def api_server() -> Iterator[Api]:
    """Run a server on a free port until the block ends."""
    api = Api("")

    ended = threading.Event()
    handler = type("Handler", (_Handler,), {"api": api, "ended": ended})
    server = _Server(("127.0.0.1", 0), handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        with contextlib.suppress(OSError):
            server.server_close()
