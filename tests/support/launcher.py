"""Starts `batchd` processes by forking one that has imported everything, since most of a start is imports.

What comes of it is a process like any other: its own pid and group, its own signals, kill -9 and exit code. Only the
interpreter's start and the imports are not done again. A process that needs another interpreter environment
(`PYTHON…`, the locale, TZ) is not for the launcher: `can_launch` says so.

    process = launch(["run", "--config", "config.toml"], environment={...}, folder=path, output=fd, errors=fd)
    process.wait(10)
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout; processes run its code, whatever is installed."""

PLUGIN = Path(__file__).parent / "plugin"
"""A folder that an installed package looks like: it registers the kinds of `batchd_test_kinds` as entry points."""

_LONGEST_REQUEST = 200_000
_SET_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG
_INTERPRETERS_OWN = ("PYTHON", "LC_", "LANG", "TZ")
_PRELOADED = ("batchd.__main__", "batchd.daemon", "batchd.cli", "batchd.jobs.kinds", "batchd.store", "batchd.db")


class Launched:
    """A process that was launched; behaves as `subprocess.Popen` does as far as the tests go."""

    def __init__(self, pid: int, ending: int) -> None:
        self.pid = pid
        self._ending = ending
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, minus a signal's number, or None while it runs."""
        if self._code is None and select.select([self._ending], [], [], 0)[0]:
            said = os.read(self._ending, 100)
            os.close(self._ending)
            self._code = int(said) if said else -signal.SIGKILL
        return self._code

    def wait(self, timeout: float) -> int:
        """Return the exit code; raises TimeoutExpired."""
        if self._code is None:
            select.select([self._ending], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("batchd", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send the signal, unless the process is over."""
        if self.poll() is None:
            os.kill(self.pid, number)


def can_launch(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether the command is `python -m batchd` in an interpreter environment that a launcher has.

    Never outside pytest: a benchmark measures the whole start, and a storm kills it at any moment.
    """
    if "pytest" not in sys.modules:
        return False
    paths = (str(PROJECT), f"{PROJECT}{os.pathsep}{PLUGIN}")
    is_usual = environment.get("PYTHONPATH") in paths
    return list(command[:3]) == [sys.executable, "-m", "batchd"] and is_usual and _own(environment) == _own(os.environ)


def launch(
    arguments: Sequence[str], *, environment: Mapping[str, str], folder: Path, given: int, output: int, errors: int
) -> Launched:
    """Start `batchd` with the arguments in a process group of its own; the caller keeps its three descriptors."""
    ending, told = os.pipe()
    request = json.dumps({"arguments": list(arguments), "environment": dict(environment), "folder": str(folder)})
    try:
        channel = _channel(environment["PYTHONPATH"])
        socket.send_fds(channel, [request.encode()], [given, output, errors, told])
        pid = int(channel.recv(100))
    finally:
        os.close(told)
    return Launched(pid, ending)


def _own(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the interpreter itself reads, but for what the tests set alike everywhere."""
    usual = {"PYTHONPATH", "PYTHONUNBUFFERED"}
    return {
        name: value for name, value in environment.items() if name.startswith(_INTERPRETERS_OWN) and name not in usual
    }


@functools.cache
def _channel(python_path: str) -> socket.socket:
    """Return the socket to this test process's launcher, which ends when the socket is closed."""
    made: Future[socket.socket] = Future()
    # The death signal is tied to the thread that starts the launcher, so that is one that lasts as long as we do.
    threading.Thread(target=_start, args=(python_path, made), name="launcher", daemon=True).start()
    return made.result(60)


def _start(python_path: str, made: Future[socket.socket]) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    launcher = subprocess.Popen(
        [*guard, sys.executable, "-m", "tests.support.launcher", str(its.fileno())],
        pass_fds=[its.fileno()],
        env={**os.environ, "PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1"},
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
    )
    launcher.returncode = 0  # it ends when we do; nobody has to wait for it
    its.close()
    ours.recv(100)
    made.set_result(ours)
    threading.Event().wait()


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each request; return the request in the child, and None when the tests are over."""
    endings: dict[int, int] = {}
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    channel.send(b"ready")
    while True:
        ready, _, _ = select.select([channel, woken], [], [])
        if woken in ready:
            os.read(woken, 1000)
            _reap(endings)
        if channel not in ready:
            continue
        said, descriptors, _, _ = socket.recv_fds(channel, _LONGEST_REQUEST, 4)
        if not said:
            for pid in endings:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            return None
        pid = os.fork()
        if pid == 0:
            _become_child([channel.fileno(), woken, waker, *endings.values()], descriptors)
            request: dict[str, Any] = json.loads(said)
            return request
        with contextlib.suppress(OSError):  # the child does it too; whoever is first
            os.setpgid(pid, pid)
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        endings[pid] = descriptors[3]
        channel.send(str(pid).encode())


def _reap(endings: dict[int, int]) -> None:
    while endings:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        ending = endings.pop(pid)
        os.write(ending, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(ending)


def _become_child(foreign: Sequence[int], descriptors: Sequence[int]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    for standard, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, standard)
    for descriptor in (*foreign, *descriptors):
        os.close(descriptor)


def _run(request: Mapping[str, Any]) -> int:
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv = ["batchd", *request["arguments"]]
    from batchd.__main__ import main  # noqa: PLC0415 (imported long before)

    return main()


def _preload() -> None:
    sys.modules["rich"] = None  # type: ignore[assignment]  # as `batchd.__main__` does
    for name in _PRELOADED:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            if module.name != "migrations":
                importlib.import_module(f"{name}.{module.name}")
    importlib.import_module("alembic.command")
    del sys.modules["rich"]


if __name__ == "__main__":
    _preload()
    _request = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(0 if _request is None else _run(_request))
