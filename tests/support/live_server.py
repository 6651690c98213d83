"""The live room served over real sockets, and a client that reads server-sent events as a browser does."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.position import parse_position
from batchd.web.connection import Connection
from batchd.web.live.event_stream import EventStream, Story, StreamTimes
from batchd.web.live.frames import Wanted
from batchd.web.live.live import Live
from batchd.web.live.run_story import Extras, RunStory
from batchd.web.live.wire import Abortable
from tests.support.waiting import wait_until

_SMALL = 16_384
"""The kernel's buffers, so that whoever does not read is soon noticed."""


@dataclass
class Served:
    """A server in a thread. `allowed` may be set to what a listener's right to go on is."""

    port: int
    live: Live
    server: uvicorn.Server
    thread: threading.Thread
    allowed: list[bool]
    listeners: list[Listener] = field(default_factory=list)

    def listen(self, path: str = "/events", last_id: str | None = None) -> Listener:
        """Return a new client; it hangs up at the end."""
        listener = Listener(self.port, path, last_id=last_id)
        self.listeners.append(listener)
        return listener

    def stop(self, seconds: float = 10) -> None:
        """Stop it; every answer ends whole."""
        self.server.should_exit = True
        self.thread.join(seconds)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def serving(
    store: Database, *, most: int = 100, times: StreamTimes | None = None, extras: Extras | None = None
) -> Iterator[Served]:
    """Serve `/events` and `/runs/{id}/events` of the store."""
    live = Live(store, SystemClock(), most=most)
    allowed = [True]

    async def is_allowed() -> bool:
        return allowed[0]

    def stream(wanted: Wanted, request: Request, story: Story) -> EventStream:
        said = request.headers.get("last-event-id")
        return EventStream(
            live,
            wanted,
            None if said is None else parse_position(said),
            story,
            is_allowed=is_allowed,
            when_full=PlainTextResponse("full", 503),
            times=times,
        )

    async def all_events(request: Request) -> Any:
        given = {name: frozenset(request.query_params.getlist(name)) for name in ("jobs", "queues", "events")}
        return stream(Wanted(**given), request, Story())

    async def run_events(request: Request) -> Any:
        wanted = Wanted(run_id=int(request.path_params["id"]))
        return stream(wanted, request, RunStory(live, wanted, lambda run: {"id": run.id, "state": run.state}, extras))

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> Any:
        live.start()
        yield

    app = Starlette(routes=[Route("/events", all_events), Route("/runs/{id}/events", run_events)], lifespan=lifespan)
    config = uvicorn.Config(
        Abortable(app), http=Connection, log_level="warning", timeout_graceful_shutdown=3, lifespan="on"
    )
    server = _Server(config, live)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    wait_until(lambda: server.started, what="the server's start")
    served = Served(listening.getsockname()[1], live, server, thread, allowed)
    try:
        yield served
    finally:
        for listener in served.listeners:
            listener.close()
        served.stop()
        listening.close()


class _Server(uvicorn.Server):
    """Lets the listeners go before it waits for their answers to end."""

    def __init__(self, config: uvicorn.Config, live: Live) -> None:
        super().__init__(config)
        self._live = live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._live.stop()
        await super().shutdown(sockets)


@dataclass(frozen=True)
class Heard:
    """One server-sent event."""

    id: str | None
    event: str
    data: Any


class Listener:
    """A client, by the HTML standard's rules: remembers the last id, also of a block that is no event."""

    def __init__(self, port: int, path: str, *, last_id: str | None = None, headers: str = "") -> None:
        self.last_id = last_id
        self.retry: int | None = None
        self.comments = 0
        self.socket = socket.socket()
        self.socket.settimeout(30)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
        self.socket.connect(("127.0.0.1", port))
        resume = "" if last_id is None else f"Last-Event-ID: {last_id}\r\n"
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{resume}{headers}\r\n".encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = dict(self._header_lines())
        self.is_whole = False
        self._blocks = self._read_blocks()

    def close(self) -> None:
        """Hang up."""
        self.file.close()
        self.socket.close()

    def next(self) -> Heard | None:
        """Return the next event; None when the answer has ended, or was cut off (`is_whole` tells)."""
        for block in self._blocks:
            if block is not None:
                return block
        return None

    def placed(self) -> str:
        """Read until the server has said where this client is, and return that."""
        while self.last_id is None:
            assert next(self._blocks, None) is None, "an event came before the first place"
            assert not self.is_whole
        return self.last_id

    def until(self, condition: Callable[[Heard], bool]) -> list[Heard]:
        """Return all events up to the first that meets the condition."""
        heard = []
        while (event := self.next()) is not None:
            heard.append(event)
            if condition(event):
                return heard
        raise AssertionError(f"the stream ended first: {heard[-3:]}")

    def _header_lines(self) -> Iterator[tuple[str, str]]:
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            yield name.lower(), value.strip()

    def _read_blocks(self) -> Iterator[Heard | None]:
        """Yield each block: an event, or None for one that is none."""
        event_id: str | None = None
        event, data = "message", list[str]()
        for line in self._body_lines():
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if line == "":
                self.last_id = self.last_id if event_id is None else event_id
                yield Heard(event_id, event, json.loads("\n".join(data))) if data else None
                event_id, event, data = None, "message", []
            elif name == "":
                self.comments += 1
            elif name == "id":
                event_id = value
            elif name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "retry":
                self.retry = int(value)

    def _body_lines(self) -> Iterator[str]:
        pending = b""
        while True:
            try:
                size = int(self.file.readline().strip() or b"-1", 16)
            except (ConnectionError, ValueError):
                return
            if size < 0:
                return
            content = self.file.read(size)
            self.file.readline()
            if size == 0:
                self.is_whole = True
                return
            *lines, pending = (pending + content).split(b"\n")
            yield from (line.decode() for line in lines)
