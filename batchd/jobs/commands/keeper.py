"""The process between the daemon and a command; see the package. Runs alone: it imports nothing of batchd.

fd 0 is the daemon: one line with the order, then "stop" lines, and its end is the daemon's end. fd 1 and 2 are the
command's stdout and stderr. `argv` names the fd for the report (lines of JSON) and that for the command's stdin.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would take longer than everything else that happens here
    from resource import struct_rusage
    from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_EVERY_SECONDS = 1.0
_KILLING_SECONDS = 10.0
_BETWEEN_KILLS_SECONDS = 0.02

# As in batchd.clock, which cannot be imported here.
_now = time.monotonic


def main(report: int, stdin: int) -> None:
    """Start the command of the order, see to its end, report it."""
    parent = os.getppid()
    prctl = _prctl()
    if prctl is not None:
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    waker = _wake_on_children()
    # Whoever stops a whole control group stops us as well, and we have something to do yet.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _do_nothing)
    order = json.loads(_line())
    oom_kills = _oom_kills()
    try:
        pid = _started(order, stdin, prctl)
    except OSError as error:
        _tell(report, {"error": error.strerror or str(error), "errno": error.errno, "file": error.filename})
        return
    except subprocess.SubprocessError as error:
        _tell(report, {"error": str(error), "errno": None, "file": None})
        return
    _tell(report, {"pid": pid})
    # From now on only the command holds its pipes: their end is the end of its output.
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2):
        os.dup2(nothing, fd)
    keeper = _Keeper(pid, parent, waker, float(order["grace"]))
    keeper.watch()
    keeper.tidy()
    usage = keeper.usage
    assert usage is not None
    _tell(
        report,
        {
            "status": os.waitstatus_to_exitcode(keeper.status),
            "has_core": os.WCOREDUMP(keeper.status),
            "max_rss": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "cpu": usage.ru_utime + usage.ru_stime,
            "left": keeper.left,
            "oom": _oom_kills() > oom_kills,
        },
    )


class _Keeper:
    def __init__(self, pid: int, parent: int, waker: int, grace: float) -> None:
        self.status = 0
        self.usage: struct_rusage | None = None
        self.left = 0
        self._pid = pid
        self._parent = parent
        self._waker = waker
        self._grace = grace
        self._kill_at: float | None = None
        self._is_orphan = False

    def watch(self) -> None:
        """Wait until the command itself has ended, of its own will or by ours."""
        while not self._reap():
            self._listen(_LOOK_EVERY_SECONDS)
            if self._is_orphan or (self._kill_at is not None and _now() >= self._kill_at):
                self._kill_all()

    def tidy(self) -> None:
        """End what the command has left behind: TERM, and after the grace KILL."""
        left = _descendants()
        self.left = len(left)
        _send(left, signal.SIGTERM)
        kill_at = self._kill_at or _now() + self._grace
        while _descendants() and not self._is_orphan and _now() < kill_at:
            self._listen(_BETWEEN_KILLS_SECONDS)
            self._reap()
        self._kill_all()

    def _kill_all(self) -> None:
        until = _now() + _KILLING_SECONDS
        while _now() < until:
            if self.usage is None:
                self._to_group(signal.SIGKILL)
            there = _descendants()
            _send(there, signal.SIGKILL)
            self._reap()
            if not there and self.usage is not None:
                return
            time.sleep(_BETWEEN_KILLS_SECONDS)

    def _to_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _listen(self, seconds: float) -> None:
        """Wait for the daemon or for a child's end, whichever comes first, but not for long."""
        sources = [self._waker] if self._is_orphan else [0, self._waker]
        if self._kill_at is not None:
            seconds = max(0.0, min(seconds, self._kill_at - _now()))
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._waker in ready:
            os.read(self._waker, 512)
        if 0 in ready:
            said = os.read(0, 4096)
            if not said:
                self._is_orphan = True
            elif self._kill_at is None:
                self._kill_at = _now() + self._grace
                if self.usage is None:
                    self._to_group(signal.SIGTERM)
        if os.getppid() != self._parent:
            self._is_orphan = True

    def _reap(self) -> bool:
        """Collect every child that has ended; return whether the command is among those so far."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._pid:
                    self.status, self.usage = status, usage
        return self.usage is not None


def _started(order: dict[str, Any], stdin: int, prctl: Any) -> int:
    def die_with_parent() -> None:
        # After the change of user, which would clear it. There are no threads here that a fork could surprise.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    identity = order["identity"] or {}
    child = subprocess.Popen(  # noqa: S603 (what the config says, which the daemon trusts)
        order["argv"],
        stdin=stdin,
        env=order["env"],
        cwd=order["cwd"],
        start_new_session=True,
        close_fds=True,
        preexec_fn=die_with_parent if prctl is not None else None,
        **identity,
    )
    os.close(stdin)
    child.returncode = 0  # it is waited for here, and not by its object
    return child.pid


def _prctl() -> Any:
    try:
        return ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None


def _wake_on_children() -> int:
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _do_nothing)
    return reading


def _descendants() -> list[int]:
    """Return the pids below this process, the nearest first; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                    if state != b"Z":
                        children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(0), [])
        found += below
        waiting += below
    return found


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory since it booted, control groups' too."""
    with contextlib.suppress(OSError), open("/proc/vmstat", encoding="ascii") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _line() -> bytes:
    """Read the order. More than this line cannot be there: "stop" comes when the command was reported to run."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            raise SystemExit(0)
        line += part
    return line


def _tell(report: int, facts: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(report, json.dumps(facts).encode() + b"\n")


def _do_nothing(_number: int, _frame: object) -> None:
    """Be a handler, which a command does not inherit as it would an ignored signal."""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
