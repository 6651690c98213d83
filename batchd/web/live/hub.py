"""Hands frames to whoever listens. Everything here belongs to the event loop's thread, but for what says otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from batchd.domain.position import Position
from batchd.web.live.frames import Frame, Wanted

_MOST_FRAMES = 2_000
_MOST_BYTES = 1_000_000


class TooManyListeners(Exception):
    """As many listen as may."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a tick brought: frames in order, the place behind them, and the newest progress of every running run."""

    frames: Sequence[Frame]
    position: Position
    progress: Mapping[int, Frame] = field(default_factory=lambda: MappingProxyType({}))


class Subscription:
    """One listener's queue. It is bounded: when the listener does not keep up, it is `dropped`, and comes back."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.dropped = False
        self.closed = False
        self.begins_at: Position | None = None
        self.on_drop: Callable[[], object] | None = None
        self._frames: deque[Frame] = deque()
        self._size = 0
        self._stirred = asyncio.Event()

    def put(self, frames: Sequence[Frame]) -> None:
        """Queue what the listener wants of the frames, unless too much waits already: then it is dropped."""
        taken = [frame for frame in frames if self.wanted.takes(frame)]
        if not taken or self.dropped:
            return
        if len(self._frames) > _MOST_FRAMES or self._size > _MOST_BYTES:
            self._drop()  # what comes at once is never too much: who reads has had all before
            return
        self._frames.extend(taken)
        self._size += sum(len(frame.content) for frame in taken)
        self._stirred.set()

    def begin(self, position: Position) -> None:
        """Say from which place on the queue holds everything."""
        self.begins_at = position
        self._stirred.set()

    def close(self) -> None:
        """Let the listener go: the server stops."""
        self.closed = True
        self._stirred.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until something was queued or changed, but not longer; return whether it was."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stirred.wait()
        was_stirred = self._stirred.is_set()
        self._stirred.clear()
        return was_stirred

    def take(self) -> list[Frame]:
        """Return and forget everything queued."""
        frames = list(self._frames)
        self._frames.clear()
        self._size = 0
        return frames

    def _drop(self) -> None:
        self.dropped = True
        self._frames.clear()
        self._size = 0
        self._stirred.set()
        if self.on_drop is not None:
            self.on_drop()


class Hub:
    """All listeners of the process. `wake_reader` is called when the first one comes."""

    wake_reader: Callable[[], None]

    def __init__(self, *, most: int) -> None:
        self.most = most
        self.dropped = 0
        self.position: Position | None = None
        self.progress: Mapping[int, Frame] = {}
        self._listeners: set[Subscription] = set()
        self._of_runs: dict[int, set[Subscription]] = {}
        self._epoch = 0
        self._is_closed = False

    @property
    def epoch(self) -> int | None:
        """The number of the time in which somebody listens; None while nobody does. Any thread may ask."""
        return self._epoch if self._listeners else None

    def __len__(self) -> int:
        return len(self._listeners)

    @contextlib.contextmanager
    def listening(self, wanted: Wanted) -> Iterator[Subscription]:
        """Give a queue for the time of the block; raises TooManyListeners."""
        if len(self._listeners) >= self.most:
            raise TooManyListeners
        listener = Subscription(wanted)
        if self._is_closed:
            listener.close()
        if not self._listeners:
            self._epoch += 1
            self.position = None
            self.progress = {}
        self._listeners.add(listener)
        if wanted.run_id is not None:
            self._of_runs.setdefault(wanted.run_id, set()).add(listener)
        if self.position is None:
            self.wake_reader()
        else:
            listener.begin(self.position)
            listener.put(tuple(self.progress.values()))
        try:
            yield listener
        finally:
            self._remove(listener)

    def begin(self, epoch: int, position: Position) -> None:
        """Hear from the reader where it begins."""
        if epoch != self.epoch:
            return
        self.position = position
        for listener in self._listeners:
            listener.begin(position)

    def publish(self, epoch: int, batch: Batch) -> None:
        """Hand the frames to whoever wants them."""
        if epoch != self.epoch or self.position is None:
            return
        self.position = batch.position
        self.progress = batch.progress
        if not batch.frames:
            return
        by_run: dict[int, list[Frame]] = {}
        for frame in batch.frames:
            if frame.run_id in self._of_runs:
                by_run.setdefault(frame.run_id, []).append(frame)
        for listener in tuple(self._listeners):
            run_id = listener.wanted.run_id
            listener.put(batch.frames if run_id is None else by_run.get(run_id, ()))

    def close(self) -> None:
        """Let every listener go, and those that come later at once."""
        self._is_closed = True
        for listener in tuple(self._listeners):
            listener.close()

    def _remove(self, listener: Subscription) -> None:
        self.dropped += listener.dropped
        self._listeners.discard(listener)
        run_id = listener.wanted.run_id
        if run_id is not None:
            of_run = self._of_runs[run_id]
            of_run.discard(listener)
            if not of_run:
                del self._of_runs[run_id]
