"""What a command's end means: decisions and words only."""

from __future__ import annotations

import enum
import signal
from collections.abc import Collection
from dataclasses import dataclass

_SHELL_SIGNALS = 128
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
_MEANINGS = {
    signal.SIGSEGV: "a segmentation fault",
    signal.SIGBUS: "a bus error",
    signal.SIGABRT: "it aborted itself",
    signal.SIGILL: "an illegal instruction",
    signal.SIGFPE: "an arithmetic fault",
    signal.SIGXCPU: "its limit of CPU time",
    signal.SIGPIPE: "nobody read what it wrote",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended. `status` is its exit code, or minus the number of the signal that killed it."""

    status: int
    seconds: float
    cpu_seconds: float
    max_rss_bytes: int
    left: int
    has_core: bool
    out_of_memory: bool


@dataclass(frozen=True, slots=True)
class ExitRules:
    """Which exit codes mean what. `retry` None: every code that is not named elsewhere."""

    success: Collection[int]
    skip: Collection[int]
    fail: Collection[int]
    retry: Collection[int] | None


class Verdict(enum.Enum):
    """What becomes of the attempt."""

    SUCCEEDED = enum.auto()
    SKIPPED = enum.auto()
    RETRY = enum.auto()
    FAIL = enum.auto()


def verdict_on(status: int, rules: ExitRules) -> Verdict:
    """Return what the status means; a death by a signal is tried again, since it says nothing of the command's work."""
    if status in rules.success:
        return Verdict.SUCCEEDED
    if status in rules.skip:
        return Verdict.SKIPPED
    if status in rules.fail:
        return Verdict.FAIL
    if status < 0 or rules.retry is None or status in rules.retry:
        return Verdict.RETRY
    return Verdict.FAIL


def description(ended: Ended, *, by_shell: bool) -> str:
    """Return how the command ended, as the end of a sentence that begins with its name."""
    if ended.status < 0:
        return _death(-ended.status, ended)
    said = f"ended with exit code {ended.status}"
    if by_shell and ended.status == _NOT_FOUND:
        return f"{said}: the shell did not find a program"
    if by_shell and ended.status == _NOT_EXECUTABLE:
        return f"{said}: a program may not be executed"
    if ended.status > _SHELL_SIGNALS and (name := _name(ended.status - _SHELL_SIGNALS)):
        memory = "; the kernel ran out of memory meanwhile" if ended.out_of_memory and name == "SIGKILL" else ""
        return f"{said}, which a shell says of a program that {name} has killed{memory}"
    return said


def _death(number: int, ended: Ended) -> str:
    name = _name(number) or f"signal {number}"
    if number == signal.SIGKILL:
        if ended.out_of_memory:
            return f"was killed by {name}: the kernel was out of memory (its OOM killer was at work meanwhile)"
        return f"was killed by {name}, which batchd did not send"
    meaning = next((text for known, text in _MEANINGS.items() if known == number), "which batchd did not send")
    joint = ", " if meaning.startswith("which") else ": "
    core = " (a core was dumped)" if ended.has_core else ""
    return f"was killed by {name}{joint}{meaning}{core}"


def _name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
