"""The server's side of the socket to the daemon."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import threading

from batchd.clock import Clock
from batchd.domain.job import JsonObject

_WAIT_SECONDS = 1.0
_FRESH_SECONDS = 1.0
_LONGEST_NAME = 100


class Link:
    """Asks the daemon what it has counted, at most once a second. Any thread may call `counted`."""

    def __init__(self, questions: socket.socket, clock: Clock) -> None:
        self._socket = questions
        self._socket.settimeout(_WAIT_SECONDS)
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(os.getpid() * 1_000_000)
        self._last: JsonObject | None = None
        self._asked_at = 0.0

    def counted(self) -> JsonObject | None:
        """Return what the daemon has counted since it started; None when it does not answer within a second."""
        with self._lock:
            now = self._clock.monotonic()
            if now - self._asked_at > _FRESH_SECONDS:
                self._asked_at = now
                self._last = self._ask()
            return self._last

    def _ask(self) -> JsonObject | None:
        question = str(next(self._numbers)).encode()
        with contextlib.suppress(OSError, ValueError):
            self._socket.send(question, socket.MSG_DONTWAIT)
            while True:
                answered, files, _, _ = socket.recv_fds(self._socket, _LONGEST_NAME, 1)
                if not files:
                    return None
                with os.fdopen(files[0], "rb") as file:
                    if answered == question:
                        file.seek(0)
                        found: JsonObject = json.load(file)
                        return found
        return None
