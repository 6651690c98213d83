"""The signals of the daemon, taken where nothing can deadlock, and from its first moment on.

A Python signal handler runs in the main thread between any two of its steps, perhaps while that thread holds the lock
that the handler needs: the log's, or an Event's own. A daemon that was told to stop in that moment would wait for
itself for ever. So the handlers here do nothing at all; the interpreter writes each signal's number into a pipe
(`signal.set_wakeup_fd`), and a thread of its own reads it and acts. That also works while the main thread is stuck.

They are in place before anything heavy is imported: a SIGHUP that found no handler would end the process, and look like
a clean stop. So this module imports next to nothing. What arrives before the daemon listens is kept for it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from batchd.errors import ExitCode

_LAST_WORDS_SECONDS = 1.0
_STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
_OTHERS = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})

Hear = Callable[[signal.Signals], None]


class Signals:
    """SIGTERM and SIGINT: the first sets `asked`, the second ends the process at once. The others are passed on.

    A crash, and the SIGABRT of systemd's watchdog, write every thread's stack to stderr.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._lock = threading.Lock()
        self._kept: list[signal.Signals] = []
        self._hear: Hear | None = None
        self._reading: int | None = None

    def install(self, *, listen: bool = True) -> None:
        """Take the signals over; main thread only, once. Without `listen` they are kept until `attach`.

        A process that is going to fork makes no thread before that.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(reading, True)
        self._reading = reading
        if listen:
            self._start()
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in _STOPS | _OTHERS:
            signal.signal(number, _do_nothing)
        # Whoever started this process may have ignored it, and nobody would be told how a child has ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with contextlib.suppress(OSError, ValueError):
            faulthandler.enable()

    def attach(self, hear: Hear) -> None:
        """Have `hear` called, on the signals' own thread, with each signal; first with those that came before."""
        with self._lock:
            kept, self._kept = self._kept, []
            self._hear = hear
        for received in kept:
            hear(received)
        self._start()

    def _start(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            threading.Thread(target=self._listen, args=(reading,), name="batchd-signals", daemon=True).start()

    def _listen(self, reading: int) -> None:
        while received := os.read(reading, 1):
            self._act(signal.Signals(received[0]))

    def _act(self, received: signal.Signals) -> None:
        if received in _STOPS:
            if self.asked.is_set():
                leave(ExitCode.UNEXPECTED, lambda: self._pass_on(received))
            self.asked.set()
        elif received not in _OTHERS:
            return
        self._pass_on(received)

    def _pass_on(self, received: signal.Signals) -> None:
        with self._lock:
            hear = self._hear
            if hear is None:
                self._kept.append(received)
        if hear is not None:
            _call_for_a_second(lambda: hear(received))


def _call_for_a_second(call: Callable[[], object]) -> None:
    """Call it and go on when it is over, or does not end: it logs, and perhaps nobody reads the log any more."""
    calling = threading.Thread(target=call, name="batchd-signal", daemon=True)
    try:
        calling.start()
    except RuntimeError:  # no thread can be had for now
        call()
    else:
        calling.join(_LAST_WORDS_SECONDS)


@functools.cache
def process_signals() -> Signals:
    """Return the signals of this process, taken over at the first call; that one is for the main thread."""
    signals = Signals()
    signals.install(listen=False)
    return signals


def leave_to_parent() -> None:
    """Leave the signals that are meant for the daemon to it: a terminal's Ctrl-C reaches every process."""
    signal.set_wakeup_fd(-1)
    for number in _OTHERS | {signal.SIGINT}:
        signal.signal(number, signal.SIG_IGN)


def leave(code: ExitCode, last_words: Callable[[], object] | None = None, *, most_seconds: int = 1) -> None:
    """Say the last words, flush the output and end the process, whatever its threads still do; for any thread.

    Waits at most a second for the output: a reader of stdout that has stopped reading must not keep the process alive.
    While somebody reads, it waits up to `most_seconds`.
    """
    from batchd.telemetry.line_output import chunks_written, finish_lines  # noqa: PLC0415 (as the module says)

    def speak() -> None:
        if last_words is not None:
            last_words()
        finish_lines()
        sys.stdout.flush()
        sys.stderr.flush()

    speaker = threading.Thread(target=speak, name="batchd-last-words", daemon=True)
    with contextlib.suppress(RuntimeError):  # no thread can be had: it ends without a word, rather than not at all
        speaker.start()
    written = -1
    for _ in range(most_seconds):
        if not speaker.is_alive() or written == (written := chunks_written()):
            break
        speaker.join(_LAST_WORDS_SECONDS)
    os._exit(code)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Be a handler, so that the signal neither kills the process nor is lost: the pipe has it."""
