"""The one reader of a process: looks while somebody listens, makes each frame once, and hands all to the hub."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from batchd.clock import Clock
from batchd.db.dialect import WakeSource
from batchd.db.engine import Database
from batchd.domain.position import Position
from batchd.loop import Loop
from batchd.store import feed
from batchd.store.feed import FeedHorizon, Happening, Placed, Sort
from batchd.web.live.frames import Frame, frame_of, progress_frame
from batchd.web.live.hub import Batch, Hub
from batchd.web.live.pace import Pace

LOOK_EVERY = timedelta(seconds=0.25)
_AT_MOST_EVERY = timedelta(seconds=0.05)
_SOON = timedelta(seconds=0.02)
_IDLE = timedelta(seconds=60)
_PAGE = 500


class FeedReader(Loop):
    """Reads the feed for `hub`, whose event loop `on_loop` calls into (from any thread)."""

    def __init__(
        self, store: Database, hub: Hub, on_loop: Callable[[Callable[..., None], Any, Any], None], clock: Clock
    ) -> None:
        super().__init__("feed-reader", clock)
        self._store = store
        self._hub = hub
        self._on_loop = on_loop
        self._epoch: int | None = None
        self._position: Position | None = None
        self._horizon = FeedHorizon(store)
        self._progress: dict[int, tuple[Happening, Frame]] = {}
        self._paces: dict[int, Pace] = {}
        self._source: WakeSource | None = None

    def run_once(self, now: datetime) -> timedelta:
        """Hand on what is new and wait for more; do nothing at all while nobody listens."""
        epoch = self._hub.epoch
        if epoch is None or epoch != self._epoch:
            self._begin_anew(epoch)
        if epoch is None:
            return _IDLE
        try:
            if self._position is None:
                return self._begin(epoch)
            self._read(epoch, now)
            self._wait()
        except BaseException:
            self.close()  # its connection may be as broken as the one that raised
            raise
        return _AT_MOST_EVERY

    def close(self) -> None:
        """Give the connection that listens back."""
        source, self._source = self._source, None
        if source is not None:
            with contextlib.suppress(OSError):
                source.close()

    def _begin_anew(self, epoch: int | None) -> None:
        self._epoch = epoch
        self._position = None
        self._horizon = FeedHorizon(self._store)
        self._progress = {}
        self._paces = {}
        if epoch is None:
            self.close()

    def _begin(self, epoch: int) -> timedelta:
        self._position = self._horizon.start()
        if self._position is None:
            return _SOON
        self._on_loop(self._hub.begin, epoch, self._position)
        return timedelta(0)

    def _read(self, epoch: int, now: datetime) -> None:
        assert self._position is not None
        up_to = self._horizon.look(self._position)
        while self._position.is_behind(up_to) and not self.is_stopping:
            with self._store.reading() as connection:
                page = feed.between(connection, self._position, up_to, _PAGE)
            frames = [frame for placed in page.found for frame in self._frames(placed, now)]
            self._position = page.reached
            self._on_loop(self._hub.publish, epoch, Batch(frames, self._position, self._newest()))
        with self._store.reading() as connection:
            going = feed.running(connection, now=now)
        fresh = [frame for each in going if (frame := self._fresh(each)) is not None]
        is_fewer = self._forget({each.run_id for each in going})
        if fresh or is_fewer:
            self._on_loop(self._hub.publish, epoch, Batch(fresh, self._position, self._newest()))

    def _frames(self, placed: Placed, now: datetime) -> list[Frame]:
        """Return the frame; before the end of a run comes its last progress, which no look may have seen."""
        frame = frame_of(placed)
        said = placed.happening
        if not frame.is_end_of_run or said.done is None or said.run_id is None:
            return [frame]
        before = self._progress.pop(said.run_id, None)
        if before is not None and _reached(before[0]) == _reached(said):
            return [frame]
        facts = {"attempt": said.facts.get("attempt")}
        last = replace(said, sort=Sort.PROGRESS, id=0, at=now, event="run.progressed", facts=facts)
        return [progress_frame(last), frame]

    def _fresh(self, going: Happening) -> Frame | None:
        """Return the frame of a run's progress, when it has gone on since the last look."""
        assert going.run_id is not None
        assert going.done is not None
        before = self._progress.get(going.run_id)
        attempt = going.facts["attempt"]
        if before is not None and _reached(before[0]) == _reached(going) and before[0].facts["attempt"] == attempt:
            return None
        pace = self._paces.get(going.run_id)
        if pace is None or pace.attempt != attempt:
            pace = self._paces[going.run_id] = Pace(attempt)
        pace.note(going.at, going.done)
        frame = progress_frame(going, rate=pace.rate)
        self._progress[going.run_id] = (going, frame)
        return frame

    def _forget(self, run_ids: set[int | None]) -> bool:
        """Forget the runs that no longer run; return whether there were any."""
        gone = self._progress.keys() - run_ids
        for run_id in gone:
            del self._progress[run_id]
        for run_id in self._paces.keys() - run_ids:
            del self._paces[run_id]
        return bool(gone)

    def _newest(self) -> Mapping[int, Frame]:
        return {run_id: frame for run_id, (_, frame) in self._progress.items()}

    def _wait(self) -> None:
        """Wait until somebody commits something, but not longer than until the next look."""
        with self._store.translating():
            if self._source is None:
                self._source = self._store.dialect.wake_source(self._store.engine)
            self._source.wait(LOOK_EVERY)


def _reached(happening: Happening) -> tuple[int | None, int | None, str | None]:
    return happening.done, happening.total, happening.note
