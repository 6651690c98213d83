"""Waiting for a condition with a deadline; the only place in the tests that polls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, seconds: float = 10, what: str = "", every: float = 0.01) -> T:
    """Return the condition's first true value; fails with `what` when there is none in time.

    `every` is how long to wait between two looks (seconds), for one that takes time of its own.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or getattr(condition, '__name__', condition)}")
        time.sleep(every)
    return value
