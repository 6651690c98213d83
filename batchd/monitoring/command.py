"""Runs a command as cron would, and reports it: its output passes through untouched, and so does its exit code."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import PurePath
from types import FrameType

from batchd.clock import SystemClock
from batchd.domain.attempt import AttemptError
from batchd.domain.job import JsonObject
from batchd.domain.run import RunState
from batchd.monitoring.output import Pump
from batchd.monitoring.recorder import Recorder
from batchd.store.reported import ReportedEnd

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_BY_SIGNAL = 128
"""What a shell says of a command that is not there, that it may not execute, and (plus the number) of a signal."""

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_KILL_AFTER = timedelta(seconds=10)
_LAST_OUTPUT = timedelta(seconds=5)
_LOOK_EVERY = timedelta(seconds=0.25)


class Output(enum.StrEnum):
    """What of a command's output is recorded."""

    ALL = "all"
    STDERR = "stderr"
    NONE = "none"


def run_reported(command: Sequence[str], recorder: Recorder, output: Output) -> int:
    """Run the command, report it, and return its exit code as a shell gives it. Main thread.

    A command that cannot be started is a run that failed. `batchd cancel` ends the command: SIGTERM, and SIGKILL after
    10 s. Signals that reach this process go on to the command.
    """
    recorder.start()
    with _forwarding() as signals:
        try:
            process, pumps = _started(command, recorder, output)
        except OSError as error:
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            said = f"{command[0]}: {error.strerror or error}"
            sys.stderr.write(f"batchd: {said}\n")
            recorder.finish(
                ReportedEnd(RunState.FAILED, AttemptError("CommandNotStarted", said, None), {"exit_code": code})
            )
            return code
        signals.go_to(process)
        was_cancelled = _waited(process, recorder)
        # What it left running may hold its output open; how it ended is known all the same.
        _join(pumps, _LAST_OUTPUT)
        recorder.finish(_end_of(command[0], process.returncode, pumps, was_cancelled=was_cancelled))
        _join(pumps, None)
    return _as_shells_say(process.returncode)


def _started(
    command: Sequence[str], recorder: Recorder, output: Output
) -> tuple[subprocess.Popen[bytes], tuple[Pump, ...]]:
    keeps_stdout = output is Output.ALL and not _is_data_file(1)
    keeps_stderr = output is not Output.NONE
    process = subprocess.Popen(  # noqa: S603 (to run a command is what this is for)
        list(command),
        stdout=subprocess.PIPE if keeps_stdout else None,
        stderr=subprocess.PIPE if keeps_stderr else None,
        bufsize=0,
        # At a terminal it stays in the foreground group, or it could not read from it; Ctrl-C reaches it by itself.
        process_group=None if _is_terminal() else 0,
    )
    found = (("stdout", process.stdout, 1), ("stderr", process.stderr, 2))
    pumps = tuple(Pump(name, pipe.fileno(), own, recorder.line) for name, pipe, own in found if pipe is not None)
    for pump in pumps:
        pump.start()
    return process, pumps


def _is_terminal() -> bool:
    with contextlib.suppress(OSError):
        return os.isatty(0)
    return False


def _is_data_file(descriptor: int) -> bool:
    """Return whether it is a file written with `>`: a dump, not a log (`>>`)."""
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return is_file and not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    except OSError:
        return True  # closed by the caller: the command has to find it so


class _Signals:
    """Sends signals on to the command; those that come before there is one wait for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def go_to(self, process: subprocess.Popen[bytes]) -> None:
        """Send what has come, and all that will come, to this process."""
        self._process = process
        for number in self._early:
            _send(process, number)

    def forward(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; a Ctrl-C at a terminal has reached the command already."""
        if self._process is None:
            self._early.append(number)
        elif not (_is_terminal() and number in {signal.SIGINT, signal.SIGQUIT}):
            _send(self._process, number)


@contextlib.contextmanager
def _forwarding() -> Iterator[_Signals]:
    """Let signals go on to the command instead of ending this process, from before the command is there."""
    signals = _Signals()
    # What is ignored (nohup) stays so, for the command as well.
    heard = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signals.forward) for number in heard}
    # But with this one ignored, the kernel would not tell how the command has ended.
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _waited(process: subprocess.Popen[bytes], recorder: Recorder) -> bool:
    """Wait for the command's end; return whether it was ended by `batchd cancel`."""
    clock, kill_at = SystemClock(), 0.0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_EVERY.total_seconds())
            return kill_at > 0
        if not recorder.cancel_requested.is_set():
            continue
        if kill_at == 0:
            kill_at = clock.monotonic() + _KILL_AFTER.total_seconds()
            _send(process, signal.SIGTERM)
        elif clock.monotonic() >= kill_at:
            _send(process, signal.SIGKILL)


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    """Send the signal to the command and all that it started, or to the command alone at a terminal."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)


def _join(pumps: Sequence[Pump], limit: timedelta | None) -> None:
    deadline = None if limit is None else SystemClock().monotonic() + limit.total_seconds()
    for pump in pumps:
        pump.join(None if deadline is None else max(0.0, deadline - SystemClock().monotonic()))


def _end_of(program: str, code: int, pumps: Sequence[Pump], *, was_cancelled: bool) -> ReportedEnd:
    name = PurePath(program).name
    result: JsonObject = {"exit_code": _as_shells_say(code)}
    if code == 0 and not was_cancelled:
        return ReportedEnd(RunState.SUCCEEDED, None, result)
    said = f"{name} ended with exit code {code}" if code >= 0 else f"{name} was ended by {_signal_name(-code)}"
    last = next((pump.last_line for pump in reversed(pumps) if pump.last_line), "")
    message = f"{said}: {last}" if last else said
    state = RunState.CANCELLED if was_cancelled else RunState.FAILED
    return ReportedEnd(state, AttemptError("CommandFailed", message, None), result)


def _as_shells_say(code: int) -> int:
    return code if code >= 0 else _BY_SIGNAL - code


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
