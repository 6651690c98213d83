"""How much memory a process and what it started hold, from /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int:
    """Return the bytes that the process holds in memory; 0 when it is gone."""
    return _pages(pid)[0] * _PAGE


def private_with_children(pid: int) -> int:
    """Return the bytes that the process and what it started hold for themselves; libraries' code is not among them."""
    return _PAGE * sum(held - shared for held, shared in map(_pages, [pid, *descendants(pid)]))


def _pages(pid: int) -> tuple[int, int]:
    try:
        _, held, shared, *_ = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0, 0
    return int(held), int(shared)


def descendants(pid: int) -> list[int]:
    """Return the processes that the process has started, and those that they have, as far as they live."""
    found: list[int] = []
    unseen = [pid]
    while unseen:
        parent = unseen.pop()
        with contextlib.suppress(OSError, ValueError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                children = [int(child) for child in (thread / "children").read_text(encoding="ascii").split()]
                found += children
                unseen += children
    return found
