"""Waits for a run's end and tells a person meanwhile how far it is."""

from __future__ import annotations

import sys
import threading
from datetime import timedelta

import click

from batchd.cli.output import say
from batchd.cli.run_text import progress_text, state_text
from batchd.cli.text import cleaned
from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store.control import RunUnknown
from batchd.store.queries import RunView, find_run

_POLL = timedelta(milliseconds=150)
_LINE_WIDTH = 100


def follow(store: Database, run_id: int, *, timeout: timedelta | None = None, quiet: bool = False) -> RunView:
    """Return the run once it is final, or as it is when the timeout passed.

    Reads one row every 150 ms. Unless `quiet`, each change of its state goes to stderr as a line, its progress as one
    line that a terminal overwrites.
    """
    clock = SystemClock()
    deadline = None if timeout is None else clock.monotonic() + timeout.total_seconds()
    pause = threading.Event()
    teller = _Teller(quiet=quiet)
    while True:
        run = find_run(store, run_id)
        if run is None:
            raise RunUnknown(f"run {run_id} is gone", hint="retention prunes old runs")
        teller.tell(run)
        if run.is_final or (deadline is not None and clock.monotonic() >= deadline):
            teller.end()
            return run
        pause.wait(_POLL.total_seconds())


class _Teller:
    """Says what changed since it was last told."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._overwrites = sys.stderr.isatty()
        self._state = RunState.QUEUED.value  # whoever waits was told so
        self._progress: str | None = None
        self._line_open = False

    def tell(self, run: RunView) -> None:
        """Write the run's state and progress where they are new."""
        if self._quiet:
            return
        state = state_text(run)
        if state != self._state and not run.is_final:
            self.end()
            say(f"run {run.id}: {state}")
        self._state = state
        progress = progress_text(run)
        if progress and progress != self._progress:
            self._progress = progress
            self._write_progress(cleaned(progress)[:_LINE_WIDTH])

    def end(self) -> None:
        """End an open progress line."""
        if self._line_open:
            click.echo(err=True)
            self._line_open = False

    def _write_progress(self, progress: str) -> None:
        if not self._overwrites:
            say(progress)
            return
        click.echo(f"\r{progress.ljust(_LINE_WIDTH)}", nl=False, err=True)
        self._line_open = True
