"""Lines to a stream, or to systemd's journal, from many threads: in the order in which they came, each whole.

To write lets go of the interpreter's lock. Ten threads that log two lines for each short run pass it around all the
time, which takes longer than the runs: so whoever finds nobody writing writes what all have brought, and the others go
on. A line is written before the call returns, or as soon as the thread that writes has got to it.

Imports next to nothing: `batchd.signals` needs it for a process's last words.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TextIO

_PIPE_BUF = 4096
"""What is written at once to a pipe, up to this many bytes, another process's lines do not come between: pipe(7)."""

_MOST_WAITING = 500
"""Lines beyond which whoever brings one waits until they are written."""

_MOST_AT_THE_END = 20_000
"""Lines beyond which a process that is ending keeps no more of them: nobody has read the log for long."""

_LOOK_SECONDS = 0.05
"""After this whoever waits looks again how many lines there are."""

_MOST_WRITES = 20
"""After so many for others a thread leaves the rest to the helper, and goes on with its own work."""


class Journal(Protocol):
    """Where stdout is systemd's journal."""

    def send(self, entry: Mapping[str, object]) -> bool:
        """Send the entry; return whether it was taken."""
        ...


class Line(NamedTuple):
    """What to write to the stream, with its newline; `entry` is for the journal, which may not take it."""

    text: str
    entry: Mapping[str, object] | None = None


class LineOutput:
    """Any thread may call any method. `in_ascii` is how a line looks that the stream cannot encode."""

    def __init__(self, out: TextIO, in_ascii: Callable[[str], str], journal: Journal | None = None) -> None:
        self.out = out
        self.in_ascii = in_ascii
        self.journal = journal
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what waits, and who writes: a fork has only one of the threads, and its parent writes those lines."""
        self.chunks_written = 0
        self._lines: deque[Line] = deque()
        self._writing = threading.RLock()
        self._is_inside = False
        self._has_failed = False
        self._is_ending = False
        self._is_behind = threading.Event()
        self._helper: threading.Thread | None = None

    def write(self, line: Line) -> None:
        """Write the line; what the stream refuses (a closed pipe, a full disk) is lost."""
        if self._is_ending and self._has_helper():
            if len(self._lines) < _MOST_AT_THE_END:
                self._lines.append(line)
            self._is_behind.set()
            return
        self._lines.append(line)
        writes = 0
        # Again after each turn: a line that came when this thread was about to let go was left to it.
        while self._lines:
            are_too_many = len(self._lines) > _MOST_WAITING and not self._is_ending
            if not self._writing.acquire(timeout=_LOOK_SECONDS if are_too_many else 0):
                if are_too_many:
                    continue  # the lock may pass by whoever waits for it, over and over, while others bring lines
                return  # whoever writes gets to it
            try:
                if self._is_inside:
                    return  # this thread itself: a finalizer that logs, in the middle of a write
                writes += self._write_chunks(_MOST_WRITES - writes)
            finally:
                self._writing.release()
            if writes >= _MOST_WRITES:
                if self._has_helper():
                    self._is_behind.set()
                    return
                writes = 0

    def wait_no_more(self) -> None:
        """Leave all writing to the helper from now on: the process ends, and no reader of stdout may hold that up."""
        self._is_ending = True
        if self._has_helper():
            self._is_behind.set()

    def finish(self) -> None:
        """Write what has been brought by now."""
        with self._writing:
            if not self._is_inside:
                self._write_chunks(len(self._lines))

    def _write_chunks(self, most: int) -> int:
        """Write what waits, in so many chunks at most; return in how many. For whoever holds the lock."""
        self._is_inside = True
        done = 0
        try:
            while self._lines and done < most:
                self._write_some()
                self.chunks_written += 1
                done += 1
        finally:
            self._is_inside = False
        return done

    def _write_some(self) -> None:
        """Write the oldest line that waits, if there is one, and those after it that go in the same write."""
        chunk: list[str] = []
        size = 0
        while self._lines:
            line = self._lines[0]
            size += _most_bytes(line.text)
            if chunk and (size > _PIPE_BUF or line.entry is not None):
                break
            self._lines.popleft()
            if line.entry is not None and self.journal is not None and self.journal.send(line.entry):
                return
            chunk.append(line.text)
        if chunk:
            self._write_texts(chunk)

    def _write_texts(self, chunk: list[str]) -> None:
        try:
            if self._has_failed:
                self.out.flush()  # the rest of a line that a full pipe, which does not block, has begun to take
                self._has_failed = False
            try:
                self.out.write("".join(chunk))
            except UnicodeEncodeError:  # the stream is not UTF-8, or a text holds half a surrogate pair
                for text in chunk:
                    self.out.write(self._encodable(text))
            self.out.flush()
        except (OSError, ValueError):
            self._has_failed = True  # a log that cannot be written must not stop the work

    def _encodable(self, text: str) -> str:
        try:
            text.encode(self.out.encoding or "utf-8")
        except UnicodeEncodeError:
            return self.in_ascii(text)
        return text

    def _has_helper(self) -> bool:
        """Start the helper where there is none; return whether there is one: perhaps no thread can be had for now."""
        if self._helper is None or not self._helper.is_alive():
            self._helper = threading.Thread(target=self._help, name="batchd-log", daemon=True)
            try:
                self._helper.start()
            except RuntimeError:
                return False
        return True

    def _help(self) -> None:
        while self._is_behind.wait():
            self._is_behind.clear()
            while self._lines:
                self.finish()


_current: LineOutput | None = None


def output_to(out: TextIO, in_ascii: Callable[[str], str], journal: Journal | None = None) -> LineOutput:
    """Return the output to the stream: the same as before for the same stream, so that no line overtakes another."""
    global _current  # noqa: PLW0603 (a process has one log)
    if _current is None or _current.out is not out:
        _current = LineOutput(out, in_ascii)
    _current.in_ascii, _current.journal = in_ascii, journal
    return _current


def wait_no_more() -> None:
    """Have no thread wait for whoever reads the log: the process is about to end."""
    if _current is not None:
        _current.wait_no_more()


def finish_lines() -> None:
    """Write what threads have logged and nobody has written yet, before the process ends."""
    if _current is not None:
        _current.finish()


def chunks_written() -> int:
    """Return a number that grows as long as lines are written."""
    return 0 if _current is None else _current.chunks_written


def _begin_anew() -> None:
    if _current is not None:
        _current.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


def _most_bytes(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)
