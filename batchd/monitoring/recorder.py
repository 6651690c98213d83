"""Records one run from a thread of its own: begin, heartbeats, lines, ending, through outages of the store."""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from batchd.clock import Clock, SystemClock
from batchd.db.engine import Database
from batchd.db.storable import storable_count, storable_json, storable_text
from batchd.domain.attempt import AttemptError
from batchd.domain.job import JsonObject
from batchd.errors import BatchdError, DatabaseUnavailable, LockTimeout, StatementCancelled
from batchd.monitoring.places import Place
from batchd.store import log_lines, reported
from batchd.store.leases import Progress, cancel_requests, write_progress
from batchd.store.reported import HEARTBEAT, ReportedEnd
from batchd.store.workers import this_process

BEGIN_WITHIN = timedelta(seconds=5)
"""How long the work may be held up until its beginning is on record."""

END_WITHIN = timedelta(seconds=10)
"""How long the script may be held up at its end by a store that does not answer."""

FIRST_LINES = 200
LAST_LINES = 300
"""Of the lines of one run the first and the last are kept."""

_LONGEST_LINE = 2_000
_TURN = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=30)
_AWAY = (DatabaseUnavailable, LockTimeout, StatementCancelled)
_FENCE = 1


class Recorder:
    """Any thread may call `progress`, `line` and read `cancel_requested`; `start` and `finish` are the script's.

    Nothing here raises for what the store does: `say` (stderr) gets one sentence when the run is not recorded.
    """

    def __init__(
        self,
        job: str,
        params: JsonObject,
        open_place: Callable[[], Place],
        *,
        say: Callable[[str], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.run_id: int | None = None
        self.cancel_requested = threading.Event()
        self._job = job
        self._params = params
        self._open_place = open_place
        self._say = say or _to_stderr
        self._clock = clock or SystemClock()
        self._worker = this_process().id
        self._place: Place | None = None
        self._began_at = 0.0
        self._beat_at = 0.0
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._settled = threading.Event()
        self._closed = threading.Event()
        self._progress: Progress | None = None
        self._unwritten_progress = False
        self._lines: deque[dict[str, Any]] = deque()
        self._last_lines: deque[dict[str, Any]] = deque(maxlen=LAST_LINES)
        self._line_count = 0
        self._end: ReportedEnd | None = None
        self._is_recorded = False
        self._problem: str | None = None
        self._has_complained = False
        self._thread = threading.Thread(target=self._work, name=f"batchd-monitor {job}", daemon=True)

    def start(self) -> None:
        """Record the beginning; return when it is on record, or cannot be for now."""
        self._began_at = self._clock.monotonic()
        self._thread.start()
        if not self._settled.wait(BEGIN_WITHIN.total_seconds()):
            self._complain("the store does not answer")

    def progress(self, done: int, total: int | None, note: str | None) -> None:
        """Say how far the run is."""
        with self._lock:
            self._progress = Progress(storable_count(done), None if total is None else storable_count(total), note)
            self._unwritten_progress = True

    def line(self, text: str, *, level: str = "info", **fields: Any) -> None:
        """Keep one line of the run: it is among the first or the last ones, or counted."""
        kept = {
            **fields,
            "ts": self._clock.now().isoformat(),
            "level": level,
            "event": "monitor.output",
            "msg": text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]} …",
        }
        with self._lock:
            self._line_count += 1
            (self._lines if self._line_count <= FIRST_LINES else self._last_lines).append(kept)

    def finish(self, end: ReportedEnd) -> bool:
        """Record how the run ended; return whether it is on record. Waits for the store a bounded time."""
        with self._lock:
            self._end = end
        self._woken.set()
        self._closed.wait((END_WITHIN + HEARTBEAT / 2).total_seconds())
        if not self._is_recorded:
            self._complain(self._problem or "the store does not answer", at_the_end=True)
        return self._is_recorded

    def _work(self) -> None:
        try:
            self._turn_until_recorded()
        finally:
            self._settled.set()
            self._closed.set()
            if self._place is not None:
                self._place.store.close()

    def _turn_until_recorded(self) -> None:
        pause, give_up_at = _TURN, math.inf
        while not self._is_recorded:
            with self._lock:
                is_ending = self._end is not None
            failure = self._try()
            self._settled.set()
            if is_ending and failure is not None:
                give_up_at = min(give_up_at, self._clock.monotonic() + END_WITHIN.total_seconds())
                if not isinstance(failure, _AWAY) or self._clock.monotonic() >= give_up_at:
                    return
            pause = _TURN if failure is None or is_ending else min(pause * 2, _LONGEST_PAUSE)
            if is_ending:
                threading.Event().wait(pause.total_seconds())
            else:
                self._woken.wait(pause.total_seconds())
                self._woken.clear()

    def _try(self) -> Exception | None:
        """Do what is due, and return what came in the way; whatever it is, the work goes on."""
        try:
            self._turn()
        except Exception as error:  # noqa: BLE001 (a config without an end, a driver's own errors, a full disk)
            said = str(error) if isinstance(error, BatchdError) else f"{type(error).__name__}: {error}"
            self._problem = " ".join(said.split())
            self._complain(self._problem)
            return error
        return None

    def _turn(self) -> None:
        if self._place is None:
            self._place = self._open_place()
        store, mask = self._place.store, self._place.mask
        if self.run_id is None:
            began_ago = timedelta(seconds=self._clock.monotonic() - self._began_at)
            params = storable_json(mask(self._params))
            self.run_id = reported.begin(store, self._job, params, self._worker, began_ago)
            self._beat_at = self._clock.monotonic() + HEARTBEAT.total_seconds()
        with self._lock:
            end = self._end
        if end is None:
            self._stay_alive(store, self.run_id)
        self._write_progress()
        try:
            self._write_lines(is_last=end is not None)
        except _AWAY:
            raise
        except Exception as error:  # noqa: BLE001 (lines that the store refuses must not keep the ending from it)
            self._drop_lines(f"{type(error).__name__}: {error}")
        if end is not None:
            self._record(end)

    def _stay_alive(self, store: Database, run_id: int) -> None:
        if self._clock.monotonic() >= self._beat_at:
            is_to_end = reported.beat(store, run_id).cancel_requested
            self._beat_at = self._clock.monotonic() + HEARTBEAT.total_seconds()
        else:
            is_to_end = run_id in cancel_requests(store, [run_id])
        if is_to_end:
            self.cancel_requested.set()

    def _write_progress(self) -> None:
        assert self._place is not None
        assert self.run_id is not None
        with self._lock:
            progress, is_new = self._progress, self._unwritten_progress
            self._unwritten_progress = False
        if progress is not None and is_new:
            note = None if progress.note is None else storable_text(self._place.mask(progress.note))
            reached = Progress(progress.done, progress.total, note)
            write_progress(self._place.store, {self.run_id: (_FENCE, reached)})

    def _write_lines(self, *, is_last: bool) -> None:
        assert self._place is not None
        with self._lock:
            waiting = list(self._lines)
            taken = len(waiting)
            if is_last:
                left_out = self._line_count - FIRST_LINES - len(self._last_lines)
                if left_out > 0:
                    waiting.append({**self._last_lines[0], "msg": f"… {left_out:,} lines are not kept …"})
                waiting += self._last_lines
        if not waiting:
            return
        mask = self._place.mask
        log_lines.write(self._place.store, [{**mask(line), "run_id": self.run_id} for line in waiting])
        with self._lock:
            # What came meanwhile stands behind what was written.
            for _ in range(taken):
                self._lines.popleft()
            if is_last:
                self._last_lines.clear()
                self._line_count = min(self._line_count, FIRST_LINES)

    def _drop_lines(self, problem: str) -> None:
        with self._lock:
            self._lines.clear()
            self._last_lines.clear()
        self._say(f"batchd: lines of this run of {self._job} are not recorded: {' '.join(problem.split())[:200]}")

    def _record(self, end: ReportedEnd) -> None:
        assert self._place is not None
        assert self.run_id is not None
        mask = self._place.mask
        error = end.error
        if error is not None:
            trace = None if error.traceback is None else storable_text(mask(error.traceback))
            error = AttemptError(error.type, storable_text(mask(error.message)), trace)
        whole = ReportedEnd(end.state, error, storable_json(mask(end.result)))
        with self._lock:
            progress = self._progress
        if progress is not None and progress.note is not None:
            progress = Progress(progress.done, progress.total, storable_text(mask(progress.note)))
        if not reported.finish(self._place.store, self.run_id, whole, progress):
            self._say(f"batchd: run {self.run_id} of {self._job} has an ending on record already")
        self._is_recorded = True

    def _complain(self, problem: str, *, at_the_end: bool = False) -> None:
        """Say once at the beginning and once at the end what is not recorded."""
        if at_the_end:
            self._say(f"batchd: how this run of {self._job} ended is not recorded: {problem}")
        elif not self._settled.is_set() and not self._has_complained:
            self._has_complained = True
            self._say(f"batchd: this run of {self._job} goes on without being recorded for now: {problem}")


def _to_stderr(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
