"""What every kind that changes a database promises, proved with real daemons.

    TRIAL = Trial(job={"kind": "csv_import", "database": "app", ...}, prepare=make_tables, outcome=rows_of)

    @disturbed
    def test_csv_import_ends_as_if_nothing_had_happened(places, blows):
        assert_survives(TRIAL, places, blows=blows, seed=1)

The job is run once undisturbed. Then it is run again on a place made anew, while daemons are killed (or told to stop)
at random moments and started again until the run succeeds; if it does before all blows were struck, another round
begins. Each round must end as the undisturbed run did. Meanwhile `batchd_runs` is read again and again: progress never
goes backwards, across attempts too, nor past its total.

A job suits when it takes some seconds in many small chunks: give it a small batch size.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import ExitCode
from batchd.store import control
from batchd.store.queries import RunView, find_run
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config
from tests.support.waiting import wait_until

JOB = "trial"
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 120.0
_SEEN_PROGRESS = 4
"""Every so many blows wait until progress was written: a run that is lost ten times without any is failed as one that
kills its daemons."""


@dataclass(frozen=True)
class Blows:
    """So many blows, by those signals in turn."""

    signals: tuple[signal.Signals, ...]
    count: int

    def __str__(self) -> str:
        return "+".join(dict.fromkeys(each.name for each in self.signals))


_KILL, _TERM = signal.SIGKILL, signal.SIGTERM
IS_FULL = os.environ.get("BATCHD_TEST_BLOWS") == "all"
"""Whether every blow is struck, as in `make stress`; a quarter of them if not, of both signals upon the same run."""

disturbed = pytest.mark.parametrize(
    "blows", [Blows((_KILL,), 20), Blows((_TERM,), 8)] if IS_FULL else [Blows((_KILL, _KILL, _TERM), 7)], ids=str
)
"""Gives a test its `blows`: of kill -9 at 20 random moments, and of SIGTERM."""


@dataclass(frozen=True)
class Place:
    """A folder, in which the daemon runs, and two empty databases of one dialect."""

    dialect: str
    folder: Path
    store_url: str
    app_url: str


@dataclass(frozen=True)
class Trial:
    """A job on the database "app" and its effect.

    `prepare` makes tables and files in a place, `outcome` reads what is there afterwards (anything that compares), and
    `results` names the keys of the run's result that must be the same however often it was disturbed.
    """

    job: Mapping[str, Any]
    prepare: Callable[[Place], None]
    outcome: Callable[[Place], Any]
    results: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a run ended: the outcome in the database, the results named by the trial, and how long it worked."""

    outcome: Any
    result: Mapping[str, Any]
    seconds: float


@dataclass
class Watch:
    """Reads one run again and again, and notes what is wrong with its progress."""

    store: Database
    run_id: int
    done: int = -1
    problems: list[str] = field(default_factory=list)

    def look(self) -> RunView:
        """Return the run as it is now."""
        run = find_run(self.store, self.run_id)
        assert run is not None
        if run.progress_done is not None:
            if run.progress_done < self.done:
                self.problems.append(f"progress went back from {self.done} to {run.progress_done}")
            if run.progress_total is not None and run.progress_done > run.progress_total:
                self.problems.append(f"progress {run.progress_done} is past its total {run.progress_total}")
            self.done = max(self.done, run.progress_done)
        return run

    def until(self, condition: Callable[[RunView], bool], *, seconds: float = _PATIENCE_SECONDS, what: str) -> RunView:
        """Look until the condition holds and return the run."""
        found: list[RunView] = []

        def holds() -> bool:
            found[:] = [self.look()]
            return condition(found[0])

        wait_until(holds, seconds=seconds, what=f"run {self.run_id} {what}")
        return found[0]

    def for_seconds(self, seconds: float) -> None:
        """Look for so long, or until the run is over."""
        deadline = time.monotonic() + seconds
        while not self.look().is_final and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_POLL_SECONDS, left))


def run_undisturbed(trial: Trial, place: Place, **changes: Any) -> Ended:
    """Run the job, with some of its params changed, in a place made ready, and return how it ended."""
    trial.prepare(place)
    with _watched(trial, place, changes) as (config, watch), Daemon(config) as daemon:
        daemon.ready(_PATIENCE_SECONDS)
        _trigger(watch)
        run = watch.until(lambda run: run.is_final, what="over")
        assert run.state == RunState.SUCCEEDED.value, f"{run.error}\n{daemon.output[-4000:]}"
        assert daemon.stop() == ExitCode.OK
    assert watch.problems == []
    assert run.duration is not None
    return _ended(trial, place, run, run.duration.total_seconds())


def kills_of(wanted: int) -> Blows:
    """Return so many kills, or a quarter of them unless all are wanted, but never fewer than two."""
    return Blows((_KILL,), wanted if IS_FULL else max(2, wanted // 4))


def assert_survives(trial: Trial, places: Callable[[], Place], *, blows: Blows, seed: int) -> None:
    """Fail unless the run ends as an undisturbed one does, however its daemons are ended; see the module."""
    dice = random.Random(seed)
    wanted = run_undisturbed(trial, places())
    coming = deque(itertools.islice(itertools.cycle(blows.signals), blows.count))
    while coming:
        left = len(coming)
        ended = _disturbed(trial, places(), coming, dice, wanted.seconds / blows.count)
        said = f"seed {seed}, after {left - len(coming)} x {blows}"
        assert ended.outcome == wanted.outcome, said
        assert ended.result == wanted.result, said


def assert_dry_run_changes_nothing(trial: Trial, place: Place) -> None:
    """Fail when a run with `dry_run = true` leaves anything in the database different."""
    trial.prepare(place)
    before = trial.outcome(place)
    assert run_undisturbed(Trial(trial.job, lambda _: None, trial.outcome), place, dry_run=True).outcome == before


def _disturbed(
    trial: Trial, place: Place, coming: deque[signal.Signals], dice: random.Random, longest_wait: float
) -> Ended:
    """Strike daemons at work with what is coming, let the last one finish; what was struck comes no more."""
    trial.prepare(place)
    struck, worked = 0, 0.0
    with _watched(trial, place, {}) as (config, watch):
        while True:
            with Daemon(config) as daemon:
                daemon.ready(_PATIENCE_SECONDS)
                if watch.run_id == 0:
                    _trigger(watch)
                watch.until(lambda run: run.state != RunState.QUEUED.value, what="at work")
                began = time.monotonic()
                if coming:
                    _wait_for_moment(watch, dice, longest_wait, by_progress=struck % _SEEN_PROGRESS == 2)
                else:
                    watch.until(lambda run: run.is_final, what="over")
                worked += time.monotonic() - began
                if watch.look().is_final:
                    assert daemon.stop() == ExitCode.OK
                    break
                struck += 1
                _strike(daemon, coming.popleft())
        run = watch.look()
        assert run.state == RunState.SUCCEEDED.value, f"after {struck} blows: {run.reason} {run.error}"
        assert watch.problems == []
        return _ended(trial, place, run, worked)


def _wait_for_moment(watch: Watch, dice: random.Random, longest: float, *, by_progress: bool) -> None:
    if by_progress:
        before = watch.done
        watch.until(lambda run: run.is_final or watch.done > before, what="making progress")
    watch.for_seconds(dice.uniform(0, longest))


def _strike(daemon: Daemon, blow: signal.Signals) -> None:
    assert daemon.code is None, f"the daemon ended by itself with {daemon.code}:\n{daemon.output[-4000:]}"
    if blow is signal.SIGKILL:
        daemon.kill()
    else:
        assert daemon.stop(blow) == ExitCode.OK, daemon.output[-4000:]


@contextmanager
def _watched(trial: Trial, place: Place, changes: Mapping[str, Any]) -> Iterator[tuple[Path, Watch]]:
    sections = {
        "store": {"url": place.store_url},
        "databases": {"app": {"url": place.app_url}},
        "jobs": {JOB: {**trial.job, **changes}},
    }
    with opened(place.store_url) as store:
        yield write_config(place.folder, sections), Watch(store, 0)


def _trigger(watch: Watch) -> None:
    watch.run_id = control.trigger(watch.store, JOB, {}, created_by=CreatedBy.CLI)


def _ended(trial: Trial, place: Place, run: RunView, seconds: float) -> Ended:
    result = run.result or {}
    return Ended(trial.outcome(place), {key: result[key] for key in trial.results}, seconds)
