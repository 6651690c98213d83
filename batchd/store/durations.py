"""How long a job's attempts took, and what became of them: what looking ahead goes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome
from batchd.domain.job import JsonObject
from batchd.domain.run import RunState
from batchd.store.schema import attempts, runs

_RUNS = 200


@dataclass(frozen=True, slots=True)
class JobHistory:
    """A job's last runs: how long the attempts took that succeeded, oldest first, and which share of all failed.

    `results` are what the last runs that succeeded gave back, oldest first, each with how long its last attempt took.
    """

    job: str
    lengths: tuple[timedelta, ...]
    failing: float
    results: tuple[tuple[timedelta, JsonObject], ...]

    def typical(self, share: float = 0.5) -> timedelta | None:
        """Return the length that this share of the runs did not exceed, or None without a run."""
        ordered = sorted(self.lengths)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def history_of(database: Database, job: str) -> JobHistory:
    """Return the history of a job's last runs; empty for a job that never ran."""
    newest = (
        select(runs.c.id, runs.c.result, runs.c.state)
        .where(runs.c.schedule_id == job, runs.c.state.in_([RunState.SUCCEEDED.value, RunState.FAILED.value]))
        .order_by(runs.c.id.desc())
        .limit(_RUNS)
        .subquery()
    )
    statement = (
        select(newest.c.id, newest.c.result, attempts.c.outcome, attempts.c.started_at, attempts.c.finished_at)
        .join(attempts, attempts.c.run_id == newest.c.id)
        .where(attempts.c.finished_at.is_not(None))
        .order_by(newest.c.id, attempts.c.fence)
    )
    lengths, results, failed, counted = [], [], 0, 0
    with database.reading() as connection:
        for row in connection.execute(statement):
            length = max(row.finished_at - row.started_at, timedelta(0))
            if row.outcome == AttemptOutcome.SUCCEEDED.value:
                lengths.append(length)
                if isinstance(row.result, dict):
                    results.append((length, row.result))
            failed += row.outcome in {AttemptOutcome.FAILED.value, AttemptOutcome.TIMED_OUT.value}
            counted += row.outcome not in {AttemptOutcome.RELEASED.value, AttemptOutcome.LOST.value}
    return JobHistory(job, tuple(lengths), failed / counted if counted else 0.0, tuple(results))


def histories(database: Database, jobs: Sequence[str]) -> dict[str, JobHistory]:
    """Return the histories of those of the jobs that have one."""
    found = {job: history_of(database, job) for job in jobs}
    return {job: history for job, history in found.items() if history.lengths}
