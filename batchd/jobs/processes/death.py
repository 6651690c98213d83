"""How a process died, in words: what its exit status, the kernel's counters and we ourselves know of it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from batchd.errors import ProcessDied

_MEANINGS = {
    signal.SIGSEGV: "a segmentation fault: a bug in a C extension, or a stack that overflowed",
    signal.SIGBUS: "a bus error: memory or a mapped file that was not there",
    signal.SIGABRT: "a library called abort()",
    signal.SIGILL: "an illegal instruction: built for another processor",
    signal.SIGFPE: "an arithmetic fault in C code",
    signal.SIGXCPU: "the limit of CPU time",
}


def died(status: int, last_words: str, *, oom_kills_before: int) -> ProcessDied:
    """Return the error for a worker that ended in the middle of a run; `status` is minus a signal's number, or a code.

    `oom_kills_before` is what `oom_kills` said when the run began.
    """
    words = last_words or None
    if status >= 0:
        return ProcessDied(
            f"the run's process ended itself with exit code {status}",
            hint="something called os._exit(), or an exit in a child that was forked",
            last_words=words,
        )
    name = _name(-status)
    if -status == signal.SIGKILL:
        if oom_kills() > oom_kills_before:
            return ProcessDied(
                f"the run's process was killed by {name}, and the kernel's OOM killer was at work: out of memory",
                hint="give the machine or the container more, or set `max_memory` to fail earlier",
                last_words=words,
            )
        return ProcessDied(f"the run's process was killed by {name}: somebody sent it", last_words=words)
    meaning = next((text for number, text in _MEANINGS.items() if number == -status), "somebody sent it")
    return ProcessDied(f"the run's process was killed by {name}: {meaning}", last_words=words)


def too_large(used: int, limit: int) -> ProcessDied:
    """Return the error for a worker that we killed because it took more memory than it may."""
    return ProcessDied(
        f"the run's process used {_megabytes(used)}, more than max_memory = {_megabytes(limit)}, and was killed",
        hint="raise `max_memory`, or work in smaller chunks",
    )


def oom_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed for want of memory.

    Those of our own control group, which is that of the daemon's service or container; where the kernel does not say,
    of the whole machine.
    """
    for file in _counters(root):
        with contextlib.suppress(OSError, ValueError):
            for line in file.read_text(encoding="ascii").splitlines():
                key, _, count = line.partition(" ")
                if key == "oom_kill":
                    return int(count)
    return 0


def _counters(root: Path) -> Iterator[Path]:
    """Yield where the kernel may say it: cgroup v2, v1, the root that a container sees, the machine."""
    groups = root / "sys/fs/cgroup"
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                yield groups / path.lstrip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                yield groups / "memory" / path.lstrip("/") / "memory.oom_control"
    yield groups / "memory.events"
    yield root / "proc/vmstat"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
