"""JSON objects, one a line, over a socket between the daemon and a worker process."""

from __future__ import annotations

import json
import socket
import threading
from datetime import datetime, timedelta
from typing import Any

_READ_BYTES = 1 << 16
_SPAN, _MOMENT = "$batchd.seconds", "$batchd.moment"

Message = dict[str, Any]


class ChannelClosed(Exception):
    """The other end is gone."""


class Channel:
    """One end. Any thread may send; one thread receives. Moments and spans of time arrive as such."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._sending = threading.Lock()
        self._unfinished = b""

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Send the message; raises ChannelClosed."""
        line = json.dumps(message, default=_tagged).encode() + b"\n"
        try:
            with self._sending:
                self._end.sendall(line)
        except OSError as error:
            raise ChannelClosed from error

    def receive(self) -> list[Message]:
        """Wait for more and return the messages that are whole now, perhaps none; raises ChannelClosed."""
        try:
            read = self._end.recv(_READ_BYTES)
        except OSError as error:
            raise ChannelClosed from error
        if not read:
            raise ChannelClosed
        *lines, self._unfinished = (self._unfinished + read).split(b"\n")
        return [json.loads(line, object_hook=_untagged) for line in lines]

    def close(self) -> None:
        """Close this end."""
        self._end.close()


def _tagged(value: Any) -> Any:
    if isinstance(value, timedelta):
        return {_SPAN: value.total_seconds()}
    return {_MOMENT: value.isoformat()} if isinstance(value, datetime) else str(value)


def _untagged(found: Message) -> Any:
    if _SPAN in found:
        return timedelta(seconds=found[_SPAN])
    return datetime.fromisoformat(found[_MOMENT]) if _MOMENT in found else found
