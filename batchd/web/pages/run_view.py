"""What a run's page needs from the databases that its job changes: resume points, and records that it could not take.

They lie outside the store. A database that does not answer within a moment is left out and named: the page is about the
run, and comes all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.domain.run import RunState
from batchd.domain.wording import span
from batchd.errors import BatchdError
from batchd.store import checkpoints, rejects
from batchd.store.checkpoints import SavedCheckpoint
from batchd.store.meta import record_id, store_id
from batchd.store.queries import AttemptView, RunView
from batchd.store.rejects import RejectView

_MOST_REJECTS = 20
_PATIENCE = timedelta(seconds=2)
_REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A resume point, and in which database it lies."""

    place: str
    state: JsonObject
    at: datetime


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What the job's databases say of a run; `silent` are the names of those that did not answer."""

    checkpoints: tuple[Checkpoint, ...] = ()
    rejects: tuple[RejectView, ...] = ()
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """One attempt with how long it took, so far when it still runs."""

    number: int
    worker: str
    started_at: datetime
    outcome: str | None
    error_message: str | None
    took: timedelta


@dataclass(frozen=True, slots=True)
class ErrorView:
    """The error of the last attempt that had one, or the run's own."""

    message: str
    type: str | None = None
    traceback: str | None = None
    attempt: int | None = None


def elsewhere(store: Database, run: RunView, databases: Sequence[DatabaseSettings]) -> Elsewhere:
    """Return what the databases of the run's job and the store itself have of it."""
    if run.state == RunState.SUCCEEDED.value and not (run.result or {}).get(_REJECTED):
        return Elsewhere()
    mine = store_id(store)
    found: list[Checkpoint] = []
    rejected: list[RejectView] = []
    silent: list[str] = []
    _note(found, "the store", checkpoints.look(store, record_id(mine), run.id))
    for settings in databases:
        hasty = replace(settings, pool_size=1, connect_timeout=_PATIENCE, statement_timeout=_PATIENCE)
        with contextlib.closing(Database(hasty)) as database:
            try:
                _note(found, settings.name, checkpoints.look(database, mine, run.id))
                rejected += rejects.of_run(database, mine, run.id, limit=_MOST_REJECTS)
            except BatchdError:
                silent.append(settings.name)
    return Elsewhere(tuple(found), tuple(rejected[:_MOST_REJECTS]), tuple(silent))


def attempt_lines(attempts: Sequence[AttemptView], now: datetime) -> list[AttemptLine]:
    """Return the attempts, newest first."""
    return [
        AttemptLine(
            each.number,
            each.worker,
            each.started_at,
            each.outcome,
            each.error_message,
            max(timedelta(0), (each.finished_at or now) - each.started_at),
        )
        for each in reversed(attempts)
    ]


def error_view(run: RunView, attempts: Sequence[AttemptView]) -> ErrorView | None:
    """Return what went wrong last, unless the run succeeded in the end."""
    if run.state == RunState.SUCCEEDED.value:
        return None
    failed = [each for each in attempts if each.error_message]
    if failed:
        last = failed[-1]
        return ErrorView(last.error_message or "", last.error_type, last.error_traceback, last.number)
    return ErrorView(run.error) if run.error else None


def summary(run: RunView, now: datetime) -> str:
    """Return where the run is, in a sentence."""
    match RunState(run.state):
        case RunState.QUEUED if run.attempt:
            return f"Waits for attempt {run.attempt + 1} of {run.max_attempts}."
        case RunState.QUEUED:
            return "Waits for a daemon."
        case RunState.RUNNING:
            passed = max(timedelta(0), now - run.started_at) if run.started_at else timedelta(0)
            return f"Attempt {run.attempt} has run for {span(passed)}."
        case RunState.SUCCEEDED:
            return f"Succeeded in {span(run.duration)}, attempt {run.attempt}."
        case RunState.FAILED:
            return f"Failed for good after {run.attempt} {'attempt' if run.attempt == 1 else 'attempts'}."
        case RunState.SKIPPED:
            return "Skipped: the one before was still unfinished."
        case RunState.MISSED:
            return "Missed: its time passed unserved."
        case RunState.CANCELLED:
            return "Discarded." if run.reason == "discarded" else "Cancelled."
        case RunState.QUARANTINED:
            return "Set aside: its kind or its params could not be understood."


def _note(found: list[Checkpoint], place: str, saved: SavedCheckpoint | None) -> None:
    if saved is not None:
        found.append(Checkpoint(place, saved.state, saved.at))
