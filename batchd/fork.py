"""Processes that are forked from this one, which a daemon does early: while it has neither threads nor connections."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence

from batchd.signals import leave_to_parent

_GO = b"go"
_LAST_STANDARD = 2


def may_fork() -> bool:
    """Return whether a fork is safe: no other thread, be it a library's, can hold a lock that it would inherit."""
    return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 (names, not paths)


def close_all_but(kept: Sequence[int]) -> None:
    """Let go of what a fork has inherited: the lock of a SQLite store would outlive the daemon otherwise."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names of descriptors)
        if int(name) > _LAST_STANDARD and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def fork() -> int:
    """Fork, and have the child leave the signals to its parent before one can reach it; returns as `os.fork` does.

    Both write the numbers of signals into one pipe until then: a Ctrl-C at that moment would count twice, which stops
    the daemon at once.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            leave_to_parent()
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Errand:
    """A piece of work that is done in a process of its own, so that what it takes of memory goes with it.

    Forks when it is made; the process waits until it is told to begin, and ends with its parent. The work is done once
    at most; `drop` it then, and also when it was not needed.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        """Fork; raises OSError where no process can be had."""
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._pid: int | None = fork()
        except OSError:
            self._ours.close()
            theirs.close()
            raise
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
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:  # a team's module has asked the kernel to keep no children's ends
            return None


def _wait_and_work(orders: socket.socket, work: Callable[[], object]) -> None:
    code = 1
    try:
        close_all_but([orders.fileno()])
        if orders.recv(len(_GO)) == _GO:
            threading.Thread(target=_end_with_parent, args=(orders,), daemon=True).start()
            work()
            code = 0
    finally:
        os._exit(code)


def _end_with_parent(orders: socket.socket) -> None:
    """End in the middle of the work, too: a store must not change under whoever comes after the parent."""
    orders.recv(1)
    os._exit(1)
