"""The only reader of time.

The local clock schedules and measures; what two processes compare (leases, retry times) uses the database's clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where a room gets the time from; tests pass their own."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary point, those asleep included; never goes backwards."""
        ...


# Linux stops CLOCK_MONOTONIC while a machine sleeps, and a lease goes on meanwhile: only CLOCK_BOOTTIME notices.
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's clock. Any thread may use it."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since an arbitrary point; never goes backwards."""
        return time.clock_gettime(_ELAPSED)


def awake_microseconds() -> int:
    """Return the microseconds of CLOCK_MONOTONIC, which systemd compares with its own (MONOTONIC_USEC)."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
