"""A piece of work that is done in a process of its own, so that what it takes of memory goes with it.

The process is forked early, when the parent has neither threads nor a connection: SQLite must not be carried over a
fork. It waits until it is told to begin, and ends with its parent.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

from batchd.signals import leave_to_parent
from batchd.web.supervisor import close_all_but

_GO = b"go"


class Errand:
    """Forks when it is made. It is done once at most; `drop` it then, and also when it was not needed."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid: int | None = os.fork()
        if self._pid == 0:
            _wait_and_work(theirs, work)
        theirs.close()

    def done(self) -> bool:
        """Have the work done and return whether it came to a good end, now; what was wrong is not told."""
        if self._pid is None:
            return False
        with contextlib.suppress(OSError):
            self._ours.send(_GO)
        return self._status() == 0

    def drop(self) -> None:
        """Let the process go."""
        self._ours.close()
        self._status()

    def _status(self) -> int | None:
        if self._pid is None:
            return None
        pid, self._pid = self._pid, None
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _wait_and_work(orders: socket.socket, work: Callable[[], object]) -> None:
    code = 1
    try:
        close_all_but([orders.fileno()])
        leave_to_parent()
        if orders.recv(len(_GO)) == _GO:
            work()
            code = 0
    finally:
        os._exit(code)
