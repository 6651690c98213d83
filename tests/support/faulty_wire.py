"""A wire to a PostgreSQL server that fails on purpose: in front of a commit, behind it, or without a word.

with FaultyWire(server_url) as wire:
    store = open_database(wire.url)
    wire.lose_answer_to("COMMIT", when="UPDATE batchd_runs")   # it happens, and the client never hears of it
"""

from __future__ import annotations

import contextlib
import enum
import re
import select
import socket
import threading
from types import TracebackType
from typing import Self

from sqlalchemy.engine import make_url


class Fault(enum.Enum):
    """What becomes of a COMMIT."""

    BEFORE = "the connection breaks before the server has heard of it"
    AFTER = "the server has committed, and the connection breaks before the client hears of it"


_CLAIM = b"each_queue (name) AS"
"""Stands in the claim in one statement, and in no other."""


class FaultyWire:
    """A proxy on loopback; use it in a `with` block. Any thread may call its methods."""

    def __init__(self, url: str) -> None:
        target = make_url(url)
        folder = target.query["host"]
        assert isinstance(folder, str)
        self._socket_file = f"{folder}/.s.PGSQL.{target.port or 5432}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = (
            f"postgresql://{target.username}@127.0.0.1:{port}/{target.database}?sslmode=disable&gssencmode=disable"
        )
        self.faults = 0
        self._fault: Fault | None = None
        self._claim_fault: Fault | None = None
        self._after: re.Pattern[bytes] = re.compile(b"")
        self._is_silent = threading.Event()
        self._is_closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed.set()
        self._listener.close()

    def break_next_commit(self, fault: Fault, after: str) -> None:
        """Let the next COMMIT of a transaction fail in which a statement matched the pattern `after`."""
        self._after = re.compile(after.encode())
        self._fault = fault

    def break_next_claim(self, fault: Fault) -> None:
        """Let the next claim in one statement fail; `AFTER`: the next one that has claimed something."""
        self._claim_fault = fault

    def fall_silent(self) -> None:
        """Carry nothing any more and close nothing: a cable that somebody pulled."""
        self._is_silent.set()

    def speak_again(self) -> None:
        """Carry what is sent from now on."""
        self._is_silent.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._socket_file)
            self._carry_between(client, server)

    def _carry_between(self, client: socket.socket, server: socket.socket) -> None:
        has_matched, claims = False, False
        while not self._is_closed.is_set():
            if self._is_silent.is_set():
                self._is_closed.wait(0.05)
                continue
            for readable in select.select([client, server], [], [], 0.1)[0]:
                data = readable.recv(65_536)
                if not data:
                    return
                if readable is server:
                    client.sendall(data)
                    continue
                claims = claims or _CLAIM in data  # each time it is parsed; then it is only bound
                if claims and data.startswith(b"B") and self._claim_fault is not None:
                    if self._breaks_claim(self._claim_fault, data, client, server):
                        return
                    continue
                has_matched = has_matched or (self._fault is not None and bool(self._after.search(data)))
                if has_matched and b"COMMIT\x00" in data and self._fault is not None:
                    fault, self._fault = self._fault, None
                    self.faults += 1
                    if fault is Fault.AFTER:
                        server.sendall(data)
                        server.recv(65_536)
                    return
                server.sendall(data)

    def _breaks_claim(self, fault: Fault, data: bytes, client: socket.socket, server: socket.socket) -> bool:
        if fault is Fault.AFTER:
            server.sendall(data)
            answer = server.recv(65_536)
            if b'"fence"' not in answer:
                client.sendall(answer)
                return False
        self._claim_fault = None
        self.faults += 1
        return True
