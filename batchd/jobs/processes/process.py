"""One worker process, seen from the daemon."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from datetime import timedelta

from batchd.clock import SystemClock
from batchd.errors import JobError
from batchd.jobs.processes.channel import Channel, ChannelClosed, Message
from batchd.jobs.processes.memory import resident

_WORKER = "batchd.jobs.processes.worker"
_ENDS_WITHIN_SECONDS = 2.0
_LOOK_SECONDS = 0.01
_LAST_LINES = 100
_LONGEST_LINE = 2_000
_READ_BYTES = 1 << 16
_MOST_READS = 256


class WorkerProcess:
    """A child in a process group of its own. One attempt has it at a time; `kill` may come from any thread.

    Start it on a thread that lives as long as it may: the kernel kills it when that thread ends.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [sys.executable, "-P", "-m", _WORKER, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                process_group=0,
            )
        except OSError as error:
            ours.close()
            raise JobError(f"no process can be started: {error.strerror}") from error
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.channel = Channel(ours)
        self.runs = 0
        self.idle_since = 0.0
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        assert self._process.stdout
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unfinished = ""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.channel, selectors.EVENT_READ)
        self._selector.register(self._output, selectors.EVENT_READ)
        self._ending = threading.Lock()
        self._status: int | None = None

    @property
    def size(self) -> int:
        """Return the bytes that it holds in memory."""
        return resident(self.pid)

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as the kernel says."""
        return self._status is None and not self._has_ended()

    def hear(self, timeout: timedelta) -> tuple[list[Message], list[str]]:
        """Wait for messages and printed lines, and return them; raises ChannelClosed when the process is gone."""
        messages: list[Message] = []
        ready = {key.fileobj for key, _ in self._selector.select(timeout.total_seconds())}
        if self.channel in ready:
            messages = self.channel.receive()
        return messages, self.printed() if messages or self._output in ready else []

    def printed(self) -> list[str]:
        """Return the lines printed since the last time, each cut to what a person reads."""
        text = self._unfinished
        for _ in range(_MOST_READS):
            try:
                read = os.read(self._output, _READ_BYTES)
            except BlockingIOError:
                break
            if not read:  # nobody can write any more
                with contextlib.suppress(KeyError):
                    self._selector.unregister(self._output)
                break
            text += self._decoder.decode(read)
        *lines, self._unfinished = text.split("\n")
        if len(self._unfinished) > _LONGEST_LINE:
            lines, self._unfinished = [*lines, self._unfinished], ""
        shown = [line.rstrip("\r")[:_LONGEST_LINE] for line in lines if line.strip()]
        self.last_lines.extend(shown)
        return shown

    def begin_output(self) -> list[str]:
        """Forget what was printed so far, and return it: it belongs to no run, or to the one before."""
        before = self.printed()
        self.last_lines.clear()
        return before

    def send(self, message: Message) -> None:
        """Send a message; one to a process that is gone is lost, as `hear` will tell."""
        with contextlib.suppress(ChannelClosed):
            self.channel.send(message)

    def kill(self) -> int:
        """Kill the process and everything of its group, wait for its end and return how it ended.

        A process that has ended by itself keeps its own ending: minus a signal's number, or its exit code.
        """
        with self._ending:
            if self._status is None:
                # Not reaped yet, so the number of its group cannot belong to anybody else.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self._status = self._process.wait()
                self._selector.close()
                self.channel.close()
                assert self._process.stdout
                self._process.stdout.close()
            return self._status

    def bury(self) -> int:
        """Return how a process ended that closed its channel; one that does not end by itself is killed."""
        clock = SystemClock()
        deadline = clock.monotonic() + _ENDS_WITHIN_SECONDS
        while not self._has_ended() and clock.monotonic() < deadline:
            threading.Event().wait(_LOOK_SECONDS)
        with contextlib.suppress(OSError):
            self.printed()
            if self._unfinished:
                self.last_lines.append(self._unfinished)
        return self.kill()

    def _has_ended(self) -> bool:
        """Return whether it has, without reaping it."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True
