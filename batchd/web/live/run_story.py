"""The stream of one run: how it stands, all of its lines, what happens to it, and a last word when it is over."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from batchd.domain.position import Position
from batchd.store.queries import RunView
from batchd.web.live.event_stream import Story
from batchd.web.live.frames import Frame, Wanted, message, moved_to
from batchd.web.live.live import Live

LINES_COME_WITHIN = timedelta(seconds=3)
"""Daemons write a run's lines every second, so the last ones come behind its end."""

SURELY_WRITTEN_AFTER = timedelta(minutes=1)

Extras = Callable[[RunView], Awaitable[Mapping[str, Mapping[str, Any]]]]


class RunStory(Story):
    """Ends the stream a moment after the run has ended.

    `present` says how a run looks as JSON. `extras` are asked once a run has ended: events to send beside, by name.
    """

    def __init__(
        self, live: Live, wanted: Wanted, present: Callable[[RunView], Mapping[str, Any]], extras: Extras | None = None
    ) -> None:
        assert wanted.run_id is not None
        self._live = live
        self._wanted = wanted
        self._run_id = wanted.run_id
        self._present = present
        self._extras = extras

    async def opening(self, start: Position) -> AsyncGenerator[list[bytes]]:
        """Yield the run, its lines so far, and its end when it has ended."""
        run = await self._live.run(self._run_id)
        if run is None:
            return
        yield [message("snapshot", self._present(run))]
        async with contextlib.aclosing(self._live.missed(Position(start.changes, 0), start, self._wanted)) as pages:
            async for frames in pages:
                yield [frame.content for frame in frames]
        yield [moved_to(start), *await self._when_over(run)]

    async def resumed(self) -> list[bytes]:
        """Return what a listener that has come back must know beside what it missed."""
        run = await self._live.run(self._run_id)
        return [] if run is None else await self._when_over(run)

    async def beside(self, frames: list[Frame]) -> list[bytes]:
        """Return the frames, and beside the run's end what belongs to it."""
        parts: list[bytes] = []
        for frame in frames:
            parts.append(frame.content)
            if frame.is_end_of_run and frame.run_id == self._run_id:
                run = await self._live.run(self._run_id)
                parts.extend([] if run is None else await self._when_over(run))
            elif frame.state is not None and self.ends_at is not None and not await self._is_over():
                self.ends_at = None  # somebody has it tried again
        return parts

    async def closing(self) -> list[bytes]:
        """Return the last word: a client need not come back."""
        run = await self._live.run(self._run_id)
        return [message("end", {"run_id": self._run_id, "state": None if run is None else run.state})]

    async def _is_over(self) -> bool:
        """Whether the run is over now: the row may be ahead of what the feed tells."""
        run = await self._live.run(self._run_id)
        return run is None or run.is_final

    async def _when_over(self, run: RunView) -> list[bytes]:
        if not run.is_final or self.ends_at is not None:
            return []
        ended_at = run.finished_at or self._live.clock.now()
        has_all = self._live.clock.now() - ended_at > SURELY_WRITTEN_AFTER
        self.ends_at = self._live.clock.monotonic() + (0 if has_all else LINES_COME_WITHIN.total_seconds())
        extras = {} if self._extras is None else await self._extras(run)
        return [message(name, data) for name, data in extras.items()]
