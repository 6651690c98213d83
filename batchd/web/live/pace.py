"""How fast a run goes on, from what it said of itself lately."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

_WINDOW = timedelta(seconds=15)


class Pace:
    """The rate of one attempt over the last fifteen seconds. A number that falls begins it anew."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self._said: deque[tuple[datetime, int]] = deque()

    def note(self, at: datetime, done: int) -> None:
        """Remember how far the run was at a moment."""
        if self._said and done < self._said[-1][1]:
            self._said.clear()
        self._said.append((at, done))
        while len(self._said) > 2 and self._said[1][0] <= at - _WINDOW:  # noqa: PLR2004 (two make a rate)
            self._said.popleft()

    @property
    def rate(self) -> float | None:
        """How much is done in a second; None while nobody can know."""
        if len(self._said) < 2:  # noqa: PLR2004
            return None
        (first, before), (last, now) = self._said[0], self._said[-1]
        seconds = (last - first).total_seconds()
        return None if seconds <= 0 else round((now - before) / seconds, 2)
