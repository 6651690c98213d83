"""The daemon's side of the HTTP surface: starts the server, answers its questions, tells it how the daemon is.

A server that has died, or shows for half a minute that it does not move, is replaced.

The first server is built by the daemon and forked from it, while no other thread does more than wait: it has the config
as the daemon read it, without a secret in a command line, and shares the pages of everything that both have imported,
and of what the daemon has done by then. A later one, when that has died, and a first one that cannot wait for the
store, is a program that is executed (`again`) and reads the config file: a fork is not safe then. Imports nothing of
the web's libraries itself: the daemon never serves.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from batchd.clock import Clock
from batchd.domain.job import JsonObject
from batchd.domain.surface import Listen, Phase
from batchd.fork import close_all_but, fork
from batchd.telemetry.line_output import finish_lines
from batchd.telemetry.logs import get_logger
from batchd.web import memory
from batchd.web.pulse import Beat, Pulse
from batchd.web.silence import Silence
from batchd.web.sockets import remove_socket

RELOAD = b"reload"
STOP = b"stop"

_LOOK_MILLISECONDS = 1_000
_FIRST_PAUSE = timedelta(seconds=0.5)
_LONGEST_PAUSE = timedelta(seconds=30)
_WELL_AFTER = timedelta(minutes=1)
_LONGEST_QUESTION = 100
_STOP_WITHIN = timedelta(seconds=4)

Serve = Callable[[], None]

log = get_logger()


@dataclass(frozen=True, slots=True)
class Ends:
    """What a server holds: two sockets to the daemon, the shared memory, the listening socket."""

    control: socket.socket
    questions: socket.socket
    pulse: Pulse
    listener: socket.socket

    def descriptors(self) -> tuple[int, int, int, int]:
        """Return the descriptors, for a program that is executed with them."""
        return self.control.fileno(), self.questions.fileno(), self.pulse.descriptor, self.listener.fileno()


@dataclass(frozen=True, slots=True)
class Again:
    """How a later server is executed: its command line, which gets four descriptors more, and its environment."""

    command: Sequence[str]
    environ: Mapping[str, str]


class Supervisor:
    """Starts the server, starts another one when it dies, and ends it.

    First `make_ready`, then `start` or `start_apart`, then `watch`; `stop` at any time. `build` makes a server on its
    ends; what it returns serves, in the forked process, until the control socket ends. `again` says how a later server
    is executed.
    """

    def __init__(
        self,
        listen: Listen,
        listener: socket.socket,
        build: Callable[[Ends], Serve],
        again: Again,
        clock: Clock,
    ) -> None:
        self._listen = listen
        self._listener = listener
        self._build = build
        self._again = again
        self._clock = clock
        self._pulse = Pulse()
        self._control: socket.socket | None = None
        self._questions: socket.socket | None = None
        self._built: tuple[Ends, Serve] | None = None
        self._pid = 0
        self._counted: Callable[[], JsonObject] = dict
        self._stopping = threading.Event()
        self._began_at = 0.0
        self._failures = 0
        self._pause = _FIRST_PAUSE

    def make_ready(self) -> None:
        """Build the server that `start` forks; takes a quarter of a second. One that cannot be built is tried again."""
        ends = self._new_ends()
        try:
            self._built = ends, self._build(ends)
        except Exception as error:  # noqa: BLE001 (whatever it is, a broken library perhaps: the jobs run without it)
            ends.control.close()
            ends.questions.close()
            self._not_started(error)

    def start(self) -> None:
        """Fork the server, unless it was started apart; main thread only, while no other does more than wait."""
        if self._built is None:
            return
        ends, serve = self._built
        gc.freeze()  # pages that the collector does not write to stay shared
        try:
            pid = fork()
        except OSError as error:
            self._not_started(error)
        else:
            if pid == 0:
                _become_server(ends, serve)
            self._adopt(pid)
        self._forget_built()

    def start_apart(self) -> None:
        """Execute the server instead, now: the store has the start wait, and somebody may ask how the daemon is."""
        self._forget_built()
        try:
            self._replace()
        except OSError as error:
            self._not_started(error)

    def watch(self, counted: Callable[[], JsonObject]) -> None:
        """Answer the server's questions with what the daemon has counted, and keep one running, in a thread."""
        self._counted = counted
        memory.give_back()  # what the start has left
        threading.Thread(target=self._watch, name="batchd-web-supervisor", daemon=True).start()

    def beat(self, phase: Phase, *, planned_at: float, renewed_at: float) -> None:
        """Publish how the daemon is, now: moments of the monotonic clock, 0 for never; for its main thread."""
        self._pulse.write(Beat(phase, self._clock.monotonic(), planned_at, renewed_at))

    def reload(self) -> None:
        """Have the server read the config file again, without a pause. Any thread may call it."""
        self._say(RELOAD)

    def stop(self) -> None:
        """End the server within a few seconds, its streams included, and take the socket's file away."""
        self._stopping.set()
        self._forget_built()
        self._say(STOP)
        deadline = self._clock.monotonic() + _STOP_WITHIN.total_seconds()
        pause = threading.Event()
        while self._clock.monotonic() < deadline and not _has_ended(self._pid):
            pause.wait(0.02)
        if not _has_ended(self._pid):
            with contextlib.suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)
        remove_socket(self._listen)

    def _say(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._control is not None:
                self._control.send(message)

    def _new_ends(self) -> Ends:
        ours, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked, questions = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for old in (self._control, self._questions):
            if old is not None:
                old.close()
        self._control, self._questions = ours, asked
        return Ends(control, questions, self._pulse, self._listener)

    def _adopt(self, pid: int) -> None:
        self._pid = pid
        self._began_at = self._clock.monotonic()

    def _forget_built(self) -> None:
        """Let go of what only the forked server needs."""
        if self._built is not None:
            ends, _ = self._built
            self._built = None
            ends.control.close()
            ends.questions.close()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            if self._pid:
                self._follow()
            while not self._stopping.wait(self._pause.total_seconds()):
                try:
                    self._replace()
                except OSError as error:  # no memory, no descriptors: most likely what ended the last one
                    self._not_started(error)
                else:
                    break

    def _follow(self) -> None:
        """Answer the server's questions until it is over, and bury it."""
        ending = os.pidfd_open(self._pid)
        try:
            self._answer_until(ending)
        finally:
            os.close(ending)
        if not self._stopping.is_set():
            self._bury()

    def _answer_until(self, ending: int) -> None:
        """Answer questions until the server is over, or the daemon stops; end a server that hangs."""
        silence = Silence(self._pulse.served(), self._clock.monotonic())
        assert self._questions is not None
        poll = select.poll()
        poll.register(ending, select.POLLIN)
        poll.register(self._questions, select.POLLIN)
        while not self._stopping.is_set():
            ready = {descriptor for descriptor, _ in poll.poll(_LOOK_MILLISECONDS)}
            if ending in ready:
                return
            if self._questions.fileno() in ready:
                self._answer(self._questions)
            if silence.is_too_long(self._pulse.served(), self._clock.monotonic()):
                log.error("http.hangs", pid=self._pid)
                signal.pidfd_send_signal(ending, signal.SIGKILL)

    def _answer(self, questions: socket.socket) -> None:
        """Send what was counted as a file in memory: however large it is, the answer is one small message."""
        with contextlib.suppress(OSError):
            question = questions.recv(_LONGEST_QUESTION)
            if not question:
                self._stopping.wait(0.1)  # the server has let go of it, and is about to end
                return
            file = os.memfd_create("batchd-counted")
            try:
                os.write(file, json.dumps(self._counted()).encode())
                socket.send_fds(questions, [question], [file], socket.MSG_DONTWAIT)
            finally:
                os.close(file)

    def _bury(self) -> None:
        """Take note of the server's end; the next one follows later and later while each dies at once."""
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if self._clock.monotonic() - self._began_at > _WELL_AFTER.total_seconds():
            self._failures = 0
        self._wait_longer()
        log.error("http.died", status=status, failures=self._failures, again_in_s=self._pause.total_seconds())

    def _not_started(self, error: Exception) -> None:
        self._wait_longer()
        again = self._pause.total_seconds()
        log.error("http.not_started", reason=str(error), failures=self._failures, again_in_s=again)

    def _wait_longer(self) -> None:
        self._failures += 1
        self._pause = min(_FIRST_PAUSE * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE)

    def _replace(self) -> None:
        """Execute another server; raises OSError when that cannot be done for now."""
        ends = self._new_ends()
        descriptors = ends.descriptors()
        try:
            process = subprocess.Popen(  # noqa: S603 (our own program)
                [*self._again.command, *map(str, descriptors)],
                env=dict(self._again.environ),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
            )
        finally:
            ends.control.close()
            ends.questions.close()
        process.returncode = 0  # it is waited for by its pid, as the first one is
        self._adopt(process.pid)


def _become_server(ends: Ends, serve: Serve) -> None:
    code = 1
    try:
        close_all_but(ends.descriptors())
        serve()
        code = 0
    finally:
        finish_lines()
        os._exit(code)


def _has_ended(pid: int) -> bool:
    """Return whether the child is over, and forget it then; 0 is none that was ever started."""
    try:
        return pid == 0 or os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
