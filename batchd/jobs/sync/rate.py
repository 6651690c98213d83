"""How often a server is asked: a steady rate over all threads, and a pause of all when it says that it is too much."""

from __future__ import annotations

import threading
from datetime import timedelta

from batchd.clock import Clock


class RateLimit:
    """Hands out the moments at which a request may be sent. Any thread may call it."""

    def __init__(self, clock: Clock, requests_per_second: float | None) -> None:
        self._clock = clock
        self._gap = 0.0 if requests_per_second is None else 1.0 / requests_per_second
        self._lock = threading.Lock()
        self._free_at = 0.0

    def next_turn(self) -> timedelta:
        """Take the next moment and return how long it is until then."""
        with self._lock:
            now = self._clock.monotonic()
            turn = max(now, self._free_at)
            self._free_at = turn + self._gap
            return timedelta(seconds=turn - now)

    def hold(self, pause: timedelta) -> None:
        """Let nobody send anything for so long."""
        with self._lock:
            self._free_at = max(self._free_at, self._clock.monotonic() + pause.total_seconds())
