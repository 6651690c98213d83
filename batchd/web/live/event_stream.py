"""One listener's answer: what it missed, then what happens, while it reads, may listen, and the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from batchd.domain.position import Position
from batchd.web.live.frames import HEARTBEAT, Frame, Wanted, message, moved_to, retry_after
from batchd.web.live.hub import Subscription, TooManyListeners
from batchd.web.live.live import Live
from batchd.web.live.wire import ClientStuck, Wire, until_gone

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would gather it first
)
_RETRY_MILLISECONDS = (2_000, 4_000)
"""Drawn, so that not all come back at once after a restart."""


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """How often a silent stream says that it lives, how long a client may not read, how long a stream may last."""

    heartbeat: timedelta = timedelta(seconds=15)
    patience: timedelta = timedelta(seconds=30)
    longest: timedelta = timedelta(hours=1)
    check_every: timedelta = timedelta(minutes=1)


class Story:
    """What one sort of stream adds: how it opens, what it says beside a frame, and when it is over."""

    ends_at: float | None = None

    async def opening(self, start: Position) -> AsyncGenerator[list[bytes]]:
        """Yield what comes first for a listener that brings no place to go on from."""
        yield [moved_to(start)]

    async def resumed(self) -> list[bytes]:
        """Return what comes behind what a listener missed that has come back."""
        return []

    async def beside(self, frames: list[Frame]) -> list[bytes]:
        """Return what is to be sent, the frames themselves among it."""
        return [frame.content for frame in frames]

    async def closing(self) -> list[bytes]:
        """Return what comes last, when it is over."""
        return []


class EventStream(Response):
    """The answer to one listener. `is_allowed` is asked from time to time whether it may go on."""

    def __init__(
        self,
        live: Live,
        wanted: Wanted,
        since: Position | None,
        story: Story,
        *,
        is_allowed: Callable[[], Awaitable[bool]],
        when_full: ASGIApp,
        times: StreamTimes | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._live = live
        self._wanted = wanted
        self._since = since
        self._story = story
        self._is_allowed = is_allowed
        self._when_full = when_full
        self._times = times or StreamTimes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve until it is over."""
        try:
            with self._live.hub.listening(self._wanted) as listener:
                await self._serve(listener, Wire(scope, send, self._live.clock, self._times.patience), receive)
        except TooManyListeners:
            await self._when_full(scope, receive, send)

    async def _serve(self, listener: Subscription, wire: Wire, receive: Receive) -> None:
        telling = asyncio.create_task(self._tell(listener, wire))
        going = asyncio.create_task(until_gone(receive))
        listener.on_drop = telling.cancel  # it may be waiting for a client that does not read
        try:
            await asyncio.wait({telling, going}, return_when=asyncio.FIRST_COMPLETED)
            if going.done():
                return
            if listener.dropped or telling.cancelled():
                wire.abort()
                return
            try:
                telling.result()
            except ClientStuck:
                listener.dropped = True
                wire.abort()
                return
            await wire.end()
        finally:
            for task in (telling, going):
                task.cancel()
            await asyncio.gather(telling, going, return_exceptions=True)

    async def _tell(self, listener: Subscription, wire: Wire) -> None:
        clock, times = self._live.clock, self._times
        over_at = clock.monotonic() + times.longest.total_seconds()
        await wire.start(200, HEADERS)
        await wire.write([retry_after(random.randint(*_RETRY_MILLISECONDS))])  # noqa: S311 (no secret)
        start = await self._begun(listener, wire)
        if start is None:
            return
        async for parts in self._opening(start):
            await wire.write(parts)
        check_at = clock.monotonic() + times.check_every.total_seconds()
        while not listener.closed and (now := clock.monotonic()) < over_at:
            if self._story.ends_at is not None and now >= self._story.ends_at:
                await wire.write(await self._story.closing())
                return
            if now >= check_at:
                check_at = now + times.check_every.total_seconds()
                if not await self._is_allowed():
                    return
            await self._turn(listener, wire, until=min(over_at, check_at))

    async def _turn(self, listener: Subscription, wire: Wire, *, until: float) -> None:
        """Send what is queued, or wait for it; say that the stream lives when it was silent for long."""
        now = self._live.clock.monotonic()
        beat_at = wire.wrote_at + self._times.heartbeat.total_seconds()
        await listener.wait(min(until, beat_at, self._story.ends_at or until) - now)
        frames = listener.take()
        if frames:
            await wire.write(await self._story.beside(frames))
        elif self._live.clock.monotonic() >= beat_at:
            # Nothing is queued, so everything up to the hub's place was sent or not wanted.
            place = self._live.hub.position
            await wire.write([HEARTBEAT if place is None else HEARTBEAT + moved_to(place)])

    async def _begun(self, listener: Subscription, wire: Wire) -> Position | None:
        """Return where the queue begins, as soon as the reader knows; None when the server stops."""
        while listener.begins_at is None and not listener.closed:
            if not await listener.wait(self._times.heartbeat.total_seconds()):
                await wire.write([HEARTBEAT])
        return listener.begins_at

    async def _opening(self, start: Position) -> AsyncGenerator[list[bytes]]:
        since = self._since
        if since is not None and await self._live.is_resumable(since, start):
            async with contextlib.aclosing(self._live.missed(since, start, self._wanted)) as pages:
                async for frames in pages:
                    yield await self._story.beside(frames)
            yield [moved_to(start), *await self._story.resumed()]
            return
        if since is not None:
            yield [message("reset", {"reason": "what lies between is gone, or too much"})]
        async with contextlib.aclosing(self._story.opening(start)) as parts:
            async for part in parts:
                yield part
