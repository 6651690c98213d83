"""Clients that take their time: with a real server, over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from batchd.web import connection
from tests.support.waiting import wait_until

_HEAD = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """A server that waits half a second for everything; `/large` has more than sockets hold, `/slow` takes a second."""
    monkeypatch.setattr(connection, "LONGEST_ASKING_SECONDS", 0.5)
    monkeypatch.setattr(connection, "LONGEST_UNREAD_SECONDS", 0.5)

    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x" * (20_000_000 if request.url.path == "/large" else 10))

    def slow(_request: Request) -> PlainTextResponse:
        threading.Event().wait(1)
        return PlainTextResponse("late")

    app = Starlette(routes=[Route("/large", answer), Route("/small", answer), Route("/slow", slow)])
    server = uvicorn.Server(uvicorn.Config(app, http=connection.Connection, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_until(lambda: server.started, what="the server's start")
        yield server
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    """Where the server listens."""
    return int(server.servers[0].sockets[0].getsockname()[1])


def _is_closed(client: socket.socket) -> bool:
    """Whether the other side has hung up."""
    try:
        while client.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_head_that_comes_byte_by_byte_is_waited_for_no_longer_than_one_that_does_not_come(port: int) -> None:
    """Bytes do not buy time; whoever asks in time may ask again, and an answer may take longer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as drop, socket.socket() as silent:
        silent.settimeout(20)
        silent.connect(("127.0.0.1", port))
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 (reset or broken pipe)
            for byte in _HEAD * 100:
                drop.sendall(bytes([byte]) if byte not in b"\r\n" else b"a")
                time.sleep(0.05)
        assert _is_closed(silent)
        assert time.monotonic() - began >= 0.5
    with socket.create_connection(("127.0.0.1", port), timeout=20) as patient:
        for path, said in ((b"small", b"xxx"), (b"slow", b"late"), (b"small", b"xxx")):
            patient.sendall(_HEAD % path)
            heard = b""
            while said not in heard:
                part = patient.recv(65_536)
                assert part, "closed before the answer"
                heard += part


def test_whoever_does_not_read_an_answer_is_hung_up_on(server: uvicorn.Server, port: int) -> None:
    """What it has not read is gone, and so is its place."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(_HEAD % b"large")
        wait_until(lambda: server.server_state.connections, what="the connection")
        wait_until(lambda: not server.server_state.connections, what="its end")
        read = 0
        try:
            while part := client.recv(1_000_000):
                read += len(part)
        except ConnectionResetError:
            pass
        assert read < 20_000_000
    with socket.create_connection(("127.0.0.1", port), timeout=20) as reader:
        reader.sendall(_HEAD % b"large")
        read = 0
        while read < 20_000_000:
            read += len(reader.recv(1_000_000))


def test_whoever_connects_just_before_a_stop_is_answered(server: uvicorn.Server, port: int) -> None:
    """Nobody else would: the connection was accepted here. It is closed after that, as one that asks nothing is."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as asking,
        socket.create_connection(("127.0.0.1", port), timeout=20) as silent,
    ):
        wait_until(lambda: len(server.server_state.connections) == 2, what="both connections")
        server.should_exit = True
        wait_until(lambda: not server.servers[0].is_serving(), what="the stop's begin")
        asking.sendall(_HEAD % b"small")
        heard = b"".join(iter(lambda: asking.recv(65_536), b""))  # to the end: it is closed then
        assert b"xxx" in heard
        assert _is_closed(silent)
