"""True time, what happens in it and when, and the clocks that show it rightly or wrongly."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime, timedelta

Event = Callable[[], None]

_MOST_AT_ONCE = 20_000


class World:
    """One true time, which jumps from event to event. Events of one moment happen in the order they were announced."""

    def __init__(self, began_at: datetime) -> None:
        self.began_at = began_at
        self.now = began_at
        self._coming: list[tuple[datetime, int, Event]] = []
        self._announced = 0

    def at(self, moment: datetime, event: Event) -> None:
        """Let the event happen then; now, when that is past."""
        self._announced += 1
        heapq.heappush(self._coming, (max(moment, self.now), self._announced, event))

    def after(self, pause: timedelta, event: Event) -> None:
        """Let the event happen after the pause."""
        self.at(self.now + pause, event)

    def live_until(self, end: datetime) -> None:
        """Let everything happen up to and including `end`, which is now afterwards."""
        at_once = 0
        while self._coming and self._coming[0][0] <= end:
            moment, _, event = heapq.heappop(self._coming)
            at_once = at_once + 1 if moment == self.now else 0
            if at_once > _MOST_AT_ONCE:
                raise RuntimeError(f"the world stands still at {moment}: a loop wants to go on at once, for ever")
            self.now = moment
            event()
        self.now = max(self.now, end)


class SimulatedClock:
    """A `Clock` that is ahead of the true time by `ahead`, which may change at any moment (a step)."""

    def __init__(self, world: World) -> None:
        self.ahead = timedelta(0)
        self._world = world

    def now(self) -> datetime:
        """Return the wall-clock time that this clock shows."""
        return self._world.now + self.ahead

    def monotonic(self) -> float:
        """Return seconds since the world began, which no step changes."""
        return (self._world.now - self._world.began_at).total_seconds()


class Turn:
    """One loop of a daemon: something that is done, says when again, and can be woken earlier.

    `may` is asked first; where it says no, it calls the function that it got when the loop may go on.
    """

    def __init__(
        self,
        world: World,
        do: Callable[[], timedelta | None],
        may: Callable[[Event], bool] = lambda _again: True,
    ) -> None:
        self._world = world
        self._do = do
        self._may = may
        self._due: datetime | None = None
        self._is_over = False

    def wake(self, after: timedelta = timedelta(0)) -> None:
        """Do it after the pause, or earlier if it was to be done earlier anyway."""
        moment = self._world.now + after
        if not self._is_over and (self._due is None or moment < self._due):
            self._due = moment
            self._world.at(moment, lambda: self._come(moment))

    def end(self) -> None:
        """Never do it again."""
        self._is_over = True

    def _come(self, moment: datetime) -> None:
        if self._is_over or self._due != moment:
            return  # over, or woken earlier meanwhile
        self._due = None
        if not self._may(self.wake):
            return
        pause = self._do()
        if pause is not None:
            self.wake(pause)
