"""Stands for systemd's end of $NOTIFY_SOCKET: keeps what a daemon says."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.waiting import wait_until


class NotifySocket:
    """Messages in their order, each a list of lines; in a `with` block. `abstract` is a name without a file."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self.address = f"@{folder}" if abstract else str(folder / "notify")
        self.messages: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{folder}" if abstract else self.address)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    @property
    def lines(self) -> list[str]:
        """All lines so far."""
        return [line for message in [*self.messages] for line in message]

    def wait_for(self, start: str, *, seconds: float = 20) -> str:
        """Return the first line that begins so."""

        def found() -> str | None:
            return next((line for line in self.lines if line.startswith(start)), None)

        line = wait_until(found, seconds=seconds, what=f"{start} in {self.lines}")
        assert line is not None
        return line

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while said := self._socket.recv(1 << 16):
                self.messages.append(said.decode().split("\n"))
