"""A real HTTP server on loopback that keeps what is posted to it, and can be told to refuse, to hold back, or to stop.

with HttpSink() as sink:
    ... url = sink.url("/hook") ...
    assert sink.received[0].path == "/hook"
"""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Posted:
    """One request that was taken."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class HttpSink:
    """See the module. `status` is what it answers; while `may_answer` is not set, it answers nothing."""

    def __init__(self) -> None:
        self.received: list[Posted] = []
        self.refused: list[Posted] = []
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_answer.set()
        self.stop()

    def url(self, path: str) -> str:
        """Where a path of it is, also while it is stopped."""
        return f"http://127.0.0.1:{self._port}{path}"

    def paths(self) -> list[str]:
        """The paths of what it took, without their query."""
        return [each.path.partition("?")[0] for each in self.received]

    def alerts(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it was told in batchd's own form, of one event or of all."""
        told = [alert for each in self.received for alert in each.json["alerts"]]
        return [alert for alert in told if event in {None, alert["event"]}]

    def start(self) -> None:
        """Listen, on the port of the last time."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler(), bind_and_activate=False)
        self._server.allow_reuse_address = True
        self._server.daemon_threads = True
        self._server.server_bind()
        self._server.server_activate()
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="http sink", daemon=True).start()

    def stop(self) -> None:
        """Refuse every connection from now on."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                posted = Posted(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
                (sink.received if sink.status < 300 else sink.refused).append(posted)
                sink.may_answer.wait(60)
                with contextlib.suppress(OSError):
                    self.send_response(sink.status)
                    self.end_headers()
                    self.wfile.write(b"thank you")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
                pass

        return Handler
