"""Passes what a command writes on, byte by byte as it comes, and keeps its lines aside."""

from __future__ import annotations

import os
import threading
from typing import Protocol

_CHUNK = 65_536
_LONGEST_LINE = 4_000


class LineSink(Protocol):
    """Gets each line."""

    def __call__(self, text: str, *, stream: str) -> None: ...  # noqa: D102


class Pump(threading.Thread):
    """Reads one pipe of the command until its end and writes the same to one of our own descriptors.

    When nobody reads us any more, the pipe is closed, so that the command hears of it as it would without us. Output
    with NUL bytes is no text: it passes, and is not kept.
    """

    def __init__(self, name: str, source: int, target: int, keep: LineSink) -> None:
        super().__init__(name=f"batchd-{name}", daemon=True)
        self.last_line = ""
        self._stream = name
        self._source = os.dup(source)
        self._target = target
        self._keep = keep
        self._rest = b""
        self._is_text = True
        os.close(source)

    def run(self) -> None:
        """Pump."""
        try:
            while chunk := os.read(self._source, _CHUNK):
                self._note(chunk)
                self._pass_on(chunk)
        except OSError:
            pass  # our own reader is gone
        finally:
            os.close(self._source)
            if self._rest and self._is_text:
                self._keep_line(self._rest)

    def _pass_on(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._target, view) :]

    def _note(self, chunk: bytes) -> None:
        if not self._is_text:
            return
        if b"\x00" in chunk:
            self._is_text = False
            self._keep("(what follows is no text, and is not kept)", stream=self._stream)
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._keep_line(line)
        if len(self._rest) > _LONGEST_LINE:
            self._keep_line(self._rest)
            self._rest = b""

    def _keep_line(self, line: bytes) -> None:
        # Of a progress bar, which overwrites itself, only what stands there in the end.
        text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace").rstrip()
        if text:
            self.last_line = text[:_LONGEST_LINE]
            self._keep(self.last_line, stream=self._stream)
