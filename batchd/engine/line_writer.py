"""Sends runs' own log lines to the store every second; an outage costs lines, never a job's time."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.errors import BatchdError
from batchd.loop import Loop
from batchd.store import log_lines
from batchd.store.log_lines import LineBuffer

_PAUSE = timedelta(seconds=1)


class LineWriter(Loop):
    """Writes what `buffer` holds."""

    def __init__(self, store: Database, buffer: LineBuffer, clock: Clock) -> None:
        super().__init__("line-writer", clock)
        self._store = store
        self._buffer = buffer

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Write everything that waits."""
        self._write_all()
        return _PAUSE

    def flush(self, deadline: float) -> None:
        """End the loop by `deadline` (monotonic seconds) and write the last lines; an unreachable store loses them."""
        if self.stop(deadline):
            with contextlib.suppress(BatchdError):
                self._write_all()

    def _write_all(self) -> None:
        while lines := self._buffer.take():
            try:
                log_lines.write(self._store, lines)
            except BatchdError:
                self._buffer.give_back(lines)
                raise
            except Exception:
                # The store works and refuses these: held back, they would keep all later ones waiting.
                self._buffer.drop(lines)
                raise
        dropped = self._buffer.take_dropped()
        if dropped:
            self._log.warning("log_lines.dropped", lines=dropped)
