"""The daemon keeps an HTTP server running, whatever ended the last one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import NoReturn

import pytest

from batchd.clock import SystemClock
from batchd.domain.surface import Tcp
from batchd.web import supervisor
from batchd.web.supervisor import Again, Ends, Supervisor
from tests.support.waiting import wait_until

LASTING = Again([sys.executable, "-c", "import time; time.sleep(60)"], {})


def _nothing() -> None:
    """Serve."""


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor whose server has just died, and whose next one cannot be executed."""
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", timedelta(seconds=0.05))
    with socket.socket() as listener:
        made = Supervisor(
            Tcp("127.0.0.1", 0), listener, lambda _ends: _nothing, Again(["/no/such/program"], {}), SystemClock()
        )
        ends = made._new_ends()
        died = subprocess.Popen(["/bin/true"])
        died.returncode = 0  # the supervisor waits for it
        made._adopt(died.pid)
        yield made
        os.kill(made._pid, signal.SIGKILL)
        made.stop()
        for end in (ends.control, ends.questions, made._control, made._questions):
            assert end is not None
            end.close()


def test_a_server_that_cannot_be_started_is_tried_again(watched: Supervisor) -> None:
    """There was no memory for it, say: the thread that keeps it running must not end of that."""
    died = watched._pid
    watched.watch(dict)
    wait_until(lambda: watched._failures >= 3, seconds=30)
    watched._again = LASTING
    wait_until(lambda: watched._pid != died, seconds=30)


def test_a_server_that_cannot_be_forked_is_executed(watched: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """There was no process for it at the start: the daemon goes on, and so do the tries."""
    os.waitpid(watched._pid, 0)
    watched._pid = 0
    watched.make_ready()
    with monkeypatch.context() as patched:
        patched.setattr(supervisor, "fork", _refuse)
        watched.start()
    assert watched._failures == 1
    watched._again = LASTING
    watched.watch(dict)
    wait_until(lambda: watched._pid, seconds=30)


def test_a_server_that_cannot_be_built_is_executed(watched: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of the web's is broken: the daemon goes on without its server, and so do the tries."""
    os.waitpid(watched._pid, 0)
    watched._pid = 0
    monkeypatch.setattr(watched, "_build", _break)
    watched.make_ready()
    watched.start()
    assert watched._failures == 1
    watched._again = LASTING
    watched.watch(dict)
    wait_until(lambda: watched._pid, seconds=30)


def _break(_ends: Ends) -> NoReturn:
    raise ImportError("no such library")


def _refuse() -> int:
    raise BlockingIOError("no process can be had")
