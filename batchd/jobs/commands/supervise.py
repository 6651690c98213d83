"""The daemon's side of a running command: the order, its output, a stop, the report."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from batchd.clock import SystemClock
from batchd.errors import JobError, RunInterrupted
from batchd.jobs.commands import keeper
from batchd.jobs.commands.endings import Ended
from batchd.jobs.commands.lines import Lines
from batchd.jobs.commands.surroundings import Account
from batchd.jobs.contract import JobContext

_KEEPER = Path(keeper.__file__)
_LOADER = ("LD_LIBRARY_PATH",)  # an interpreter may need it to start at all
_LOOK_EVERY_SECONDS = 0.1
_READ_BYTES = 1 << 16
_BEYOND_GRACE_SECONDS = 15.0
_LAST_OUTPUT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to start, as whom, where, and how long it may go on after TERM."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path | None
    who: Account | None
    grace: timedelta

    def line(self) -> bytes:
        """Return the order as the keeper reads it."""
        who = self.who
        change = None
        if who is not None and not who.is_ours:
            change = {"user": who.uid, "group": who.gid, "extra_groups": list(who.groups)}
        order = {
            "argv": list(self.argv),
            "env": dict(self.environment),
            "cwd": None if self.cwd is None else str(self.cwd),
            "identity": change,
            "grace": self.grace.total_seconds(),
        }
        return json.dumps(order).encode() + b"\n"


def run_command(order: Order, stdin: IO[bytes], lines: Lines, context: JobContext) -> Ended:
    """Run the command to its end and return how it ended.

    Raises JobError when it cannot be started, and RunInterrupted once it is gone after the run was told to stop.
    """
    clock = SystemClock()
    began = clock.monotonic()
    with _kept(order, stdin) as kept:
        report = _watched(kept, order, lines, context)
    if "error" in report:
        raise JobError(f"cannot start {order.argv[0]!r}: {_refusal(report)}", retryable=False)
    if "status" not in report:
        raise JobError("the process that kept the command ended without a word, and the command with it")
    return Ended(
        status=report["status"],
        seconds=round(clock.monotonic() - began, 3),
        cpu_seconds=round(report["cpu"], 3),
        max_rss_bytes=report["max_rss"],
        left=report["left"],
        has_core=report["has_core"],
        out_of_memory=report["oom"],
    )


@dataclass(slots=True)
class _Kept:
    """The keeper's process and our ends of its pipes."""

    process: subprocess.Popen[bytes]
    outputs: Mapping[int, str]
    report: int

    def say(self, said: bytes) -> None:
        """Tell the keeper something; one that is gone hears nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(said)
            self.process.stdin.flush()

    def let_go(self) -> None:
        """Close the pipe, at which the keeper kills what is left."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()


@contextlib.contextmanager
def _kept(order: Order, stdin: IO[bytes]) -> Iterator[_Kept]:
    """Start the keeper and give it the order; at the end of the block nothing of it is left."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        (out, out_end), (err, err_end), (report, report_end) = os.pipe(), os.pipe(), os.pipe()
        for fd in (out, err, report):
            ours.callback(os.close, fd)
            os.set_blocking(fd, False)
        for fd in (out_end, err_end, report_end):
            theirs.callback(os.close, fd)
        process = subprocess.Popen(  # noqa: S603 (our own interpreter and file; the order is the config's)
            [sys.executable, "-I", "-S", str(_KEEPER), str(report_end), str(stdin.fileno())],
            stdin=subprocess.PIPE,
            stdout=out_end,
            stderr=err_end,
            pass_fds=(report_end, stdin.fileno()),
            env={name: os.environ[name] for name in _LOADER if name in os.environ},
            start_new_session=True,  # a Ctrl-C at the daemon's terminal is not the command's
        )
        theirs.close()
        kept = _Kept(process, {out: "stdout", err: "stderr"}, report)
        try:
            kept.say(order.line())
            yield kept
        finally:
            kept.let_go()
            try:
                process.wait(_BEYOND_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _watched(kept: _Kept, order: Order, lines: Lines, context: JobContext) -> dict[str, Any]:
    """Read everything until the keeper has reported the end; a stop is passed on, and raised at the end."""
    clock = SystemClock()
    told = _Telling()
    interrupted: RunInterrupted | None = None
    until = float("inf")
    with selectors.DefaultSelector() as selector:
        for fd in (*kept.outputs, kept.report):
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map() and clock.monotonic() < until:
            _read(selector, kept, lines, told)
            if interrupted is None and not told.is_over:
                interrupted = _stop_of(context)
                if interrupted is not None:
                    until = clock.monotonic() + order.grace.total_seconds() + _BEYOND_GRACE_SECONDS
            if interrupted is not None and told.is_running:
                kept.say(b"stop\n")
                told.is_running = False
            if kept.report not in selector.get_map():
                # Nobody who could write is left, but for one to whom the command handed its pipe on.
                until = min(until, clock.monotonic() + _LAST_OUTPUT_SECONDS)
    lines.close()
    if interrupted is not None:
        raise interrupted
    return told.facts


def _read(selector: selectors.BaseSelector, kept: _Kept, lines: Lines, told: _Telling) -> None:
    for key, _ in selector.select(_LOOK_EVERY_SECONDS):
        data = os.read(key.fd, _READ_BYTES)
        if not data:
            selector.unregister(key.fd)
        elif key.fd == kept.report:
            told.add(data)
        else:
            lines.feed(kept.outputs[key.fd], data)


def _stop_of(context: JobContext) -> RunInterrupted | None:
    try:
        context.raise_if_stopping()
    except RunInterrupted as stop:
        return stop
    return None


class _Telling:
    """What the keeper has reported so far."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.is_running = False
        self._part = b""

    @property
    def is_over(self) -> bool:
        """Whether the end is reported: what comes now can undo nothing."""
        return "status" in self.facts or "error" in self.facts

    def add(self, data: bytes) -> None:
        """Take more of the report, a line of JSON after another."""
        *whole, self._part = (self._part + data).split(b"\n")
        for line in whole:
            facts = json.loads(line)
            self.is_running = "pid" in facts
            self.facts |= facts


def _refusal(report: Mapping[str, Any]) -> str:
    file = report.get("file")
    return f"{report['error']}{f': {file}' if file else ''}"
