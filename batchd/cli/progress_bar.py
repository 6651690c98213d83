"""How far a command's own work is: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from batchd.cli.output import say
from batchd.cli.text import cleaned, span
from batchd.clock import SystemClock

_BETWEEN_LINES = timedelta(seconds=5)


class ByteProgress:
    """Shows progress in bytes on stderr; use it in a `with` block. `quiet` shows nothing."""

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        self._what = cleaned(what)
        self._quiet = quiet
        self._clock = SystemClock()
        self._began = self._clock.monotonic()
        self._told = self._began
        self._first: int | None = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._bar = self._new_bar()
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=None, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, total: int | None, note: str | None) -> None:
        """Show how far it is."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, note=cleaned(note or "").partition(", ")[2])
            return
        if self._quiet:
            return
        now = self._clock.monotonic()
        if self._first is None:
            self._first = done
        if now - self._told >= _BETWEEN_LINES.total_seconds():
            self._told = now
            say(self._line(done, total, note, now - self._began))

    def _new_bar(self) -> Any:
        from rich.progress import DownloadColumn, TransferSpeedColumn  # noqa: PLC0415 (see `_terminal_bar`)

        return _terminal_bar(DownloadColumn(), TransferSpeedColumn())

    def _line(self, done: int, total: int | None, note: str | None, seconds: float) -> str:
        return progress_line(done, total, note, self._first or 0, seconds)


class RowProgress(ByteProgress):
    """The same in rows."""

    def _new_bar(self) -> Any:
        from rich.progress import MofNCompleteColumn, TextColumn  # noqa: PLC0415 (see `_terminal_bar`)

        return _terminal_bar(MofNCompleteColumn(), TextColumn("rows"))

    def _line(self, done: int, total: int | None, note: str | None, seconds: float) -> str:  # noqa: ARG002 (no note)
        return row_line(done, total, done - (self._first or 0), seconds)


def row_line(done: int, total: int | None, lately: int, seconds: float) -> str:
    """Return "1,200 of 5,000 (24 %) rows; 400 rows/s, 10s left"; the rate is that of `lately`."""
    rate = lately / seconds if seconds > 0 else 0.0
    text = f"{done:,}" + (f" of {total:,} ({min(100, 100 * done // total)} %)" if total else "")
    left = f", {span(timedelta(seconds=(total - done) / rate))} left" if total and rate > 0 else ""
    return f"{text} rows; {rate:,.0f} rows/s{left}"


def progress_line(done: int, total: int | None, note: str | None, first: int, seconds: float) -> str:
    """Return "1,200 of 5,000 (24 %) bytes, line 7 of users.csv; 0.4 MB/s, 12s left"; the rate since `first`."""
    rate = (done - first) / seconds if seconds > 0 else 0.0
    text = f"{done:,}"
    if total:
        text += f" of {total:,} ({min(100, 100 * done // total)} %)"
    text += f" {note}" if note else ""
    text += f"; {rate / 1e6:.1f} MB/s"
    return text + (f", {span(timedelta(seconds=(total - done) / rate))} left" if total and rate > 0 else "")


def _terminal_bar(*measures: Any) -> Any:
    from rich.console import Console  # noqa: PLC0415 (only a terminal needs it, and it takes 60 ms)
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *measures,
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
