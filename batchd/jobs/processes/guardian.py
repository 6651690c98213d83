"""Kills what worker processes have started when the daemon dies without a word.

The kernel does it for the workers themselves, but not for their children. So a small process of its own reads the list
of groups from a pipe that only the daemon holds; when the pipe ends, the daemon is gone.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

_CODE = """
import os, signal
groups, unfinished = set(), b""
while read := os.read(0, 65536):
    *lines, unfinished = (unfinished + read).split(b"\\n")
    for line in lines:
        (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Guardian:
    """Starts with the first group; any thread may call any method. One that somebody killed is started anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """Kill the group when this process dies."""
        with self._lock:
            self._groups.add(group)
            if self._process is None or self._process.poll() is not None:
                self._start()
            else:
                self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        """Leave the group alone: it is gone, and its number may come again."""
        with self._lock:
            self._groups.discard(group)
            self._tell(f"-{group}")

    def close(self) -> None:
        """End the guardian."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.communicate()
                self._process = None

    def _start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (our own code)
            [sys.executable, "-I", "-S", "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for group in self._groups:
            self._tell(f"+{group}")

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
