"""A real process with its output read as it comes, in a process group of its own, and never left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.canary import assert_no_canary
from tests.support.launcher import PROJECT, can_launch, launch
from tests.support.waiting import wait_until


class RunningProcess:
    """A started command; use it in a `with` block, which kills the whole group at its end.

    stdout and stderr come as one stream of lines. The kernel kills the command when the thread that started it dies,
    so that a test run that is killed itself leaves nothing behind. `python -m batchd` comes from the launcher, unless
    it is to be `fresh`: for a test that is about the start itself.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path = PROJECT,
        on_line: Callable[[str], None] | None = None,
        fresh: bool = False,
    ) -> None:
        self._on_line = on_line
        self._lines: list[str] = []
        self._popen, stdout = _started(command, clean_environment(environment), folder, fresh=fresh)
        self._stdout = os.fdopen(stdout, encoding="utf-8", errors="replace")
        self._reader = threading.Thread(target=self._read, name=f"output of {self._popen.pid}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._stdout.close()
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
        for line in self._stdout:
            self._lines.append(line.rstrip("\n"))
            if self._on_line:
                self._on_line(self._lines[-1])


def _started(command: Sequence[str], environment: Mapping[str, str], folder: Path, *, fresh: bool) -> tuple[Any, int]:
    """Start the command in a group of its own; return it and where to read what it writes to stdout and stderr."""
    output, written = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    try:
        if not fresh and can_launch(command, environment):
            streams = {"given": nothing, "output": written, "errors": written}
            return launch(command[3:], environment=environment, folder=folder, **streams), output
        started = subprocess.Popen(
            [*guard, *command],
            stdin=nothing,
            stdout=written,
            stderr=written,
            cwd=folder,
            env=dict(environment),
            process_group=0,
        )
        return started, output
    finally:
        os.close(nothing)
        os.close(written)


def own_megabytes(pid: int) -> float:
    """Return the process's part of what is in no file: PSS of libraries' files depends on who else runs here."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss_Anon:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which `python -m batchd` runs this checkout's code, with nothing else of batchd's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHD_", "COV_"))}
    return {**kept, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1", **(more or {})}


def completed(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    given: str | None = None,
    seconds: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with what it is `given` on stdin, and return what it said."""
    if not can_launch(command, environment):
        return subprocess.run(
            command,
            env=dict(environment),
            cwd=folder,
            input=given or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        source.write((given or "").encode())
        source.seek(0)
        streams = {"given": source.fileno(), "output": output.fileno(), "errors": errors.fileno()}
        process = launch(command[3:], environment=environment, folder=folder, **streams)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, code, output.read().decode(), errors.read().decode())
