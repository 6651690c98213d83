"""What the daemon is doing this moment, for the log: every thread's stack and every run in hand (SIGUSR1)."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Sequence

from batchd.engine.running import RunningAttempt
from batchd.telemetry.logs import get_logger

_LONGEST_STACK = 16_000


def dump(attempts: Sequence[RunningAttempt], now: float) -> None:
    """Log the runs in hand, one line each, then the threads, one line each; `now` is monotonic seconds."""
    log = get_logger()
    for running in attempts:
        began = running.started_at
        busy = None if began is None else round(now - began, 1)
        reason = running.stop_reason
        log.info("dump.run", **running.claim.log_fields, busy_s=busy, told_to_stop=reason and reason.value)
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # noqa: SLF001 (the one way to see other threads; documented as such)
    for ident, frame in sorted(frames.items(), key=lambda pair: names.get(pair[0], "")):
        stack = "".join(traceback.format_stack(frame))[-_LONGEST_STACK:]
        log.info("dump.thread", thread=names.get(ident, str(ident)), stack=stack)
