"""Memory that the C library keeps for later, given back to the system: a start leaves much of it behind."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8  # mallopt(3)


def keep_one_arena() -> None:
    """Let all threads share one heap; before they are made. The server's threads mostly wait."""
    with contextlib.suppress(AttributeError, OSError):  # a C library that is not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give what is free at this moment back to the system."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
