"""The room's one object: the hub, its reader and the store, wired; and what listeners ask the store for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.domain.position import Position
from batchd.store import feed, listeners, queries
from batchd.store.queries import RunView
from batchd.web.going_on import going_on
from batchd.web.live.feed_reader import FeedReader
from batchd.web.live.frames import Frame, Wanted, frame_of
from batchd.web.live.hub import Hub

_PAGE = 500
_HIGHEST = 2**63 - 1
_AT_ONCE = 4
"""Listeners that are given what they missed at once; after a restart all of them come together."""

_MOST_CHANGES_BEHIND = 50_000
_STOP_WITHIN = 2.0
_WISH_EVERY_SECONDS = 60.0

T = TypeVar("T")


class Live:
    """Feeds every listener of this process. Made and used on the event loop's thread."""

    def __init__(self, store: Database, clock: Clock, *, most: int) -> None:
        self.clock = clock
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self.hub = Hub(most=most)
        self._reader = FeedReader(store, self.hub, self._on_loop, clock)
        self.hub.wake_reader = self._reader.wake
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def serve(self, stopping: asyncio.Event) -> None:
        """Keep the store telling of runs that start, until the server stops; then let all listeners go."""
        self.start()
        while not await _is_set_within(stopping, _WISH_EVERY_SECONDS):  # the daemon wishes first, with its tables
            with going_on("feed-wish"):  # the wish lasts for days, and comes again
                await asyncio.to_thread(listeners.wish_for_starts, self._store)
        await self.stop()

    def start(self) -> None:
        """Begin, if it has not begun yet; within the event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._reader.start()

    async def stop(self) -> None:
        """Let all listeners go, each with a whole answer, and end the reader."""
        self.hub.close()
        deadline = self.clock.monotonic() + _STOP_WITHIN
        self._reader.request_stop()
        await asyncio.to_thread(self._reader.stop, deadline)
        self._reader.close()

    async def run(self, run_id: int) -> RunView | None:
        """Return the run as it stands."""
        return await self._asked(queries.find_run, self._store, run_id)

    async def has_news(self, since: Position, run_id: int) -> bool:
        """Whether anything of a run that is over lies behind the place."""
        return await self._asked(self._has_more, since, run_id)

    async def is_resumable(self, since: Position, start: Position) -> bool:
        """Whether everything between both places is there still, and not too much."""
        if start.changes - since.changes > _MOST_CHANGES_BEHIND or since.changes > start.changes:
            return False
        if since.changes == start.changes:
            return True
        oldest = await self._asked(self._oldest_change)
        return oldest is not None and oldest <= since.changes + 1

    async def missed(self, since: Position, start: Position, wanted: Wanted) -> AsyncGenerator[list[Frame]]:
        """Yield what lies between both places and is wanted, a page at a time."""
        reached = since
        while reached.is_behind(start):
            frames, reached = await self._asked(self._page, reached, start, wanted)
            yield frames

    def _page(self, since: Position, start: Position, wanted: Wanted) -> tuple[list[Frame], Position]:
        with self._store.reading() as connection:
            page = feed.between(connection, since, start, _PAGE, run_id=wanted.run_id)
        frames = [frame_of(placed) for placed in page.found]
        return [frame for frame in frames if wanted.takes(frame)], page.reached

    def _has_more(self, since: Position, run_id: int) -> bool:
        with self._store.reading() as connection:
            return bool(feed.between(connection, since, Position(_HIGHEST, _HIGHEST), 1, run_id=run_id).found)

    def _oldest_change(self) -> int | None:
        with self._store.reading() as connection:
            return feed.oldest_change(connection)

    async def _asked(self, function: Callable[..., T], *given: Any) -> T:
        async with self._room:
            return await asyncio.to_thread(function, *given)

    def _on_loop(self, function: Callable[..., None], *given: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended, and every listener with it
            self._loop.call_soon_threadsafe(function, *given)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
