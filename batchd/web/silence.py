"""When a server that has not ended is given up: it is stopped, or hangs, and answers nobody."""

from __future__ import annotations

from datetime import timedelta

_LOOK_EVERY = timedelta(seconds=1)
_MOST_LOOKS = 30
_MOST_LOOKS_AT_START = 300


class Silence:
    """Judges by a number that the server counts up. `served` is what it was when the server began.

    Looks are counted, at most one a second, and not the time: who looks may have been stopped together with the server,
    and both go on then.
    """

    def __init__(self, served: int, now: float) -> None:
        self._served = served
        self._looked_at = now
        self._looks = 0
        self._most = _MOST_LOOKS_AT_START

    def is_too_long(self, served: int, now: float) -> bool:
        """Return whether the server has not moved for so many looks that it is to be replaced."""
        if now - self._looked_at < _LOOK_EVERY.total_seconds():
            return False
        self._looked_at = now
        if served != self._served:
            self._served, self._looks, self._most = served, 0, _MOST_LOOKS
        else:
            self._looks += 1
        return self._looks >= self._most
