"""A real process with its output read as it comes, in a process group of its own, and never left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.canary import assert_no_canary
from tests.support.waiting import wait_until

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout; processes run its code, whatever is installed."""


class RunningProcess:
    """A started command; use it in a `with` block, which kills the whole group at its end.

    stdout and stderr come as one stream of lines. The kernel kills the command when the thread that started it dies,
    so that a test run that is killed itself leaves nothing behind.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path = PROJECT,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._on_line = on_line
        self._lines: list[str] = []
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self._popen = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=folder,
            env=clean_environment(environment),
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {self._popen.pid}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        assert self._popen.stdout
        self._popen.stdout.close()
        if error is None:
            assert_no_canary(self.output, "the process")

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def output(self) -> str:
        """Everything written so far."""
        return "\n".join(self._lines)

    @property
    def code(self) -> int | None:
        """The exit code; minus a signal's number when that ended it; None while it runs."""
        return self._popen.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        self._popen.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """Return the exit code; fails with the output when the process is still there after the time."""
        wait_until(lambda: self.code is not None, seconds=seconds, what=f"exit of {self.pid}:\n{self.output}")
        self._reader.join(seconds)
        code = self.code
        assert code is not None
        return code

    def kill(self) -> None:
        """Send SIGKILL to the group and wait for its end; nothing happens to a group that is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(10)
        self._reader.join(10)

    def _read(self) -> None:
        assert self._popen.stdout
        for line in self._popen.stdout:
            self._lines.append(line.rstrip("\n"))
            if self._on_line:
                self._on_line(self._lines[-1])


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which `python -m batchd` runs this checkout's code, with nothing else of batchd's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHD_", "COV_"))}
    return {**kept, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1", **(more or {})}
