"""The signals of the daemon, taken where nothing can deadlock.

A Python signal handler runs in the main thread between any two of its steps, perhaps while that thread holds the lock
that the handler needs: the log's, or an Event's own. A daemon that was told to stop in that moment would wait for
itself for ever. So the handlers here do nothing at all; the interpreter writes each signal's number into a pipe
(`signal.set_wakeup_fd`), and a thread of its own reads it and acts. That also works while the main thread is stuck.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from batchd.errors import ExitCode
from batchd.telemetry.logs import get_logger

_LAST_WORDS_SECONDS = 1.0

log = get_logger()


class StopSignal:
    """SIGTERM and SIGINT: the first sets `asked`, the second ends the process at once. SIGHUP is noted.

    SIGUSR1 writes every thread's stack to stderr.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()

    def install(self) -> None:
        """Take the signals over; main thread only, once."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(reading, True)
        threading.Thread(target=self._listen, args=(reading,), name="batchd-signals", daemon=True).start()
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _do_nothing)
        with contextlib.suppress(OSError, ValueError):
            faulthandler.enable()
            faulthandler.register(signal.SIGUSR1)

    def _listen(self, reading: int) -> None:
        while received := os.read(reading, 1):
            self._act(signal.Signals(received[0]))

    def _act(self, received: signal.Signals) -> None:
        match received:
            case signal.SIGTERM | signal.SIGINT if self.asked.is_set():
                name = received.name
                leave(ExitCode.UNEXPECTED, lambda: log.warning("service.stopping_now", signal=name))
            case signal.SIGTERM | signal.SIGINT:
                self.asked.set()
                log.info("signal.received", signal=received.name)
            case signal.SIGHUP:
                log.info("signal.received", signal="SIGHUP", ignored=True)


def leave(code: ExitCode, last_words: Callable[[], object] | None = None) -> None:
    """Say the last words, flush the output and end the process, whatever its threads still do; for any thread.

    Waits at most a second for the output: a reader of stdout that has stopped reading must not keep the process alive.
    """

    def speak() -> None:
        if last_words is not None:
            last_words()
        sys.stdout.flush()
        sys.stderr.flush()

    speaker = threading.Thread(target=speak, name="batchd-last-words", daemon=True)
    speaker.start()
    speaker.join(_LAST_WORDS_SECONDS)
    os._exit(code)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Be a handler, so that the signal neither kills the process nor is lost: the pipe has it."""
