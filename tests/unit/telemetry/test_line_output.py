"""Lines of many threads to one stream."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from batchd.telemetry.line_output import Line, LineOutput, output_to
from tests.support.waiting import wait_until

_SECONDS = 20.0


class _Stream(io.StringIO):
    """Keeps what each write gave it; while it is `held`, a write waits."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.entered = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def hold(self) -> None:
        self.free.clear()
        self.entered.clear()

    def write(self, text: str, /) -> int:
        self.entered.set()
        assert self.free.wait(_SECONDS)
        self.writes.append(text)
        return len(text)

    @property
    def lines(self) -> list[str]:
        return "".join(self.writes).splitlines()


class _Journal:
    """Takes the entries that it likes."""

    def __init__(self) -> None:
        self.taken: list[object] = []

    def send(self, entry: Mapping[str, object]) -> bool:
        if entry["MESSAGE"] == "too long":
            return False
        self.taken.append(entry["MESSAGE"])
        return True


def _started(target: object, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_every_line_is_written_whole_once_and_in_its_threads_order() -> None:
    """Eight threads, each with lines of its own, some of them longer than a write."""
    stream = _Stream()
    output = LineOutput(stream, str)

    def log(name: int) -> None:
        for number in range(400):
            output.write(Line(f"{name} {number} {'x' * (5000 if number % 50 == 0 else 60)}\n"))

    for thread in [_started(log, name) for name in range(8)]:
        thread.join(_SECONDS)
    output.finish()
    said = [tuple(map(int, line.split()[:2])) for line in stream.lines]
    assert [[number for who, number in said if who == name] for name in range(8)] == [list(range(400))] * 8
    assert all(len(text) <= 4096 or text.count("\n") == 1 for text in stream.writes)
    assert all(text.endswith("\n") for text in stream.writes)


def test_nobody_waits_for_a_slow_stream_but_who_writes_and_then_it_gets_all_at_once() -> None:
    """The others' lines go out together, in few writes."""
    stream = _Stream()
    output = LineOutput(stream, str)
    stream.hold()
    writer = _started(output.write, Line("first\n"))
    assert stream.entered.wait(_SECONDS)
    for number in range(100):
        output.write(Line(f"line {number}\n"))  # returns, though nothing can be written
    stream.free.set()
    writer.join(_SECONDS)
    assert stream.lines == ["first", *(f"line {number}" for number in range(100))]
    assert len(stream.writes) == 2


def test_a_stream_that_stands_still_holds_up_whoever_brings_too_much() -> None:
    """What waits stays bounded: beyond 500 lines a thread waits, and nothing of it is lost."""
    stream = _Stream()
    output = LineOutput(stream, str)
    stream.hold()
    writer = _started(output.write, Line("first\n"))
    assert stream.entered.wait(_SECONDS)
    brought: list[int] = []

    def bring() -> None:
        for number in range(600):
            output.write(Line(f"line {number}\n"))
            brought.append(number)

    bringer = _started(bring)
    wait_until(lambda: len(brought) >= 500, seconds=_SECONDS)
    bringer.join(0.1)
    assert bringer.is_alive()
    stream.free.set()
    for thread in (writer, bringer):
        thread.join(_SECONDS)
    wait_until(lambda: len(stream.lines) == 601, seconds=_SECONDS)
    assert stream.lines == ["first", *(f"line {number}" for number in range(600))]


def test_nobody_goes_on_writing_for_others() -> None:
    """After some writes the rest is the helper's, however much the others bring meanwhile."""
    stream = _Stream()
    output = LineOutput(stream, str)
    other = 0

    def bring_more(text: str, /) -> int:
        nonlocal other
        if other < 1_000:  # each write finds another line behind it
            other += 1
            output._lines.append(Line(f"other {other}\n"))
        stream.writes.append(text)
        return len(text)

    stream.write = bring_more  # type: ignore[method-assign]
    output.write(Line("mine\n"))
    wait_until(lambda: len(stream.lines) == 1_001, seconds=_SECONDS)
    assert stream.lines == ["mine", *(f"other {number + 1}" for number in range(1_000))]
    assert output._helper is not None


def test_a_journal_gets_entries_and_the_stream_what_it_does_not_take() -> None:
    """In their order, each in one place alone."""
    stream, journal = _Stream(), _Journal()
    output = LineOutput(stream, str, journal)
    for text in ("one", "too long", "two"):
        output.write(Line(f"{text}\n", {"MESSAGE": text}))
    assert (journal.taken, stream.lines) == (["one", "two"], ["too long"])


def test_what_cannot_be_encoded_is_shown_in_ascii_and_spoils_no_other_line() -> None:
    """Also where they went in one write."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    output = LineOutput(stream, lambda text: text.encode("ascii", "backslashreplace").decode())
    output._lines.append(Line("plain\n"))
    output.write(Line("größer\n"))
    assert raw.getvalue().decode().splitlines() == ["plain", r"gr\xf6\xdfer"]


def test_a_finalizer_that_logs_in_the_middle_of_a_write_does_not_wait_for_its_own_thread() -> None:
    """Not even when so much waits that others would have to: SQLAlchemy's and psycopg's finalizers do log."""
    stream = _Stream()
    output = LineOutput(stream, str)

    def log_inside(text: str, /) -> int:
        if not stream.writes:
            output._lines.extend(Line(f"other {number}\n") for number in range(600))
            output.write(Line("from a finalizer\n"))
        stream.writes.append(text)
        return len(text)

    stream.write = log_inside  # type: ignore[method-assign]
    writer = _started(output.write, Line("mine\n"))
    writer.join(_SECONDS)
    assert not writer.is_alive()
    wait_until(lambda: len(stream.lines) == 602, seconds=_SECONDS)
    assert stream.lines == ["mine", *(f"other {number}" for number in range(600)), "from a finalizer"]


def test_who_waits_goes_on_when_the_lines_are_fewer_though_the_lock_passes_it_by() -> None:
    """The thread that writes may have the lock again and again before another one wakes up."""
    stream = _Stream()
    output = LineOutput(stream, str)
    output._lines.extend(Line("x\n") for _ in range(600))
    with output._writing:
        bringer = _started(output.write, Line("last\n"))
        bringer.join(0.1)
        assert bringer.is_alive()
        for _ in range(500):
            output._lines.popleft()
        bringer.join(_SECONDS)
        assert not bringer.is_alive()
    output.finish()
    assert stream.lines == [*(["x"] * 100), "last"]


def test_where_no_thread_can_be_had_whoever_writes_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on tasks is no reason for a log line to raise an error, nor to be lost."""
    stream = _Stream()
    output = LineOutput(stream, str)
    output._lines.extend(Line(f"{number} {'x' * 4000}\n") for number in range(50))

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    output.write(Line("last\n"))
    assert [line.split()[0] for line in stream.lines] == [*map(str, range(50)), "last"]


def test_a_full_pipe_that_does_not_block_costs_whole_lines_and_spoils_none() -> None:
    """What was begun is brought to its end before another line begins."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    read = b""
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        output = LineOutput(stream, str)
        for number in range(3_000):
            output.write(Line(f"{number} {'x' * 1000}\n"))
            if number % 100 == 99:
                read += os.read(reading, 30_001)
        for _ in range(10):
            read += _read_now(reading)
            output.write(Line("more\n"))
        read += _read_now(reading)
    os.close(reading)
    lines = read.decode().splitlines()
    assert [line for line in lines if line != "more" and len(line.removesuffix("x" * 1000)) > 6] == []
    assert {line.split()[-1] for line in lines} == {"x" * 1000, "more"}
    assert len(lines) > 500


def _read_now(reading: int) -> bytes:
    try:
        return os.read(reading, 1 << 16)
    except BlockingIOError:
        return b""


def test_a_fork_writes_its_own_lines_and_not_its_parents(tmp_path: Path) -> None:
    """Such as a multiprocessing child of a job: the parent's thread that writes is not in it, its lines are."""
    file = (tmp_path / "log").open("w", encoding="utf-8")
    output = output_to(file, str)
    output._lines.append(Line("the parent's\n"))
    with output._writing:  # by another thread than the one that forks
        child = _started(_fork_and_log, output)
        child.join(_SECONDS)
    output.finish()
    file.close()
    assert (tmp_path / "log").read_text().splitlines() == ["the child's", "the parent's"]


def _fork_and_log(output: LineOutput) -> None:
    pid = os.fork()
    if pid == 0:
        output.write(Line("the child's\n"))
        os._exit(0)
    os.waitpid(pid, 0)
