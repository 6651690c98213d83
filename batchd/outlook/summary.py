"""What a simulated ledger says, summed up: by job, by queue, and what is worth a person's attention."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from batchd.domain.attempt import AttemptOutcome
from batchd.domain.job import JobDefinition
from batchd.domain.run import CreatedBy, Reason, RunState
from batchd.domain.schedule import fire_delay
from batchd.store.ledger import Ledger, LedgerAttempt, LedgerRun

_LATE = timedelta(minutes=1)
_TAIL = 0.95
_RETRIED = frozenset({AttemptOutcome.FAILED.value, AttemptOutcome.TIMED_OUT.value})


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One job. Waits are from the fire time (and its jitter) to the start; None where nothing started.

    `missed` counts fire times, `catch_ups` runs for fires that had passed, `overlaps` fires skipped because the run
    before was unfinished, `retries` attempts after a failure.
    """

    job: str
    queue: str
    fires: int
    succeeded: int
    failed: int
    missed: int
    overlaps: int
    catch_ups: int
    retries: int
    unfinished: int
    typical_wait: timedelta | None
    tail_wait: timedelta | None
    longest_wait: timedelta | None
    longest_run: timedelta | None
    busy: timedelta


@dataclass(frozen=True, slots=True)
class QueueSummary:
    """One queue: how many runs started, how many ran at once at most, how long the one that waited longest did."""

    queue: str
    started: int
    most_at_once: int
    longest_wait: timedelta | None
    longest_wait_job: str | None


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to look at: at what fire time, of which job, what happened."""

    at: datetime
    job: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Summary:
    """All of it; `busiest_at` is when `most_at_once` runs ran at once, in all daemons."""

    jobs: tuple[JobSummary, ...]
    queues: tuple[QueueSummary, ...]
    remarks: tuple[Remark, ...]
    runs: int
    most_at_once: int
    busiest_at: datetime | None


def summarized(ledger: Ledger, jobs: Sequence[JobDefinition]) -> Summary:
    """Return the ledger's summary; jobs in the order given, queues by name, remarks in the order of time."""
    attempts_of: dict[int, list[LedgerAttempt]] = defaultdict(list)
    for attempt in ledger.attempts:
        attempts_of[attempt.run_id].append(attempt)
    runs_of: dict[str, list[LedgerRun]] = defaultdict(list)
    for run in ledger.runs:
        runs_of[run.schedule_id or run.kind].append(run)
    waits = {run.id: wait for job in jobs for run in runs_of[job.name] if (wait := _wait(job, run)) is not None}
    most, at = _most_at_once(ledger.attempts)
    remarks = [remark for job in jobs for run in runs_of[job.name] for remark in _remarks(job, run, waits)]
    return Summary(
        jobs=tuple(_job_summary(job, runs_of[job.name], attempts_of, waits) for job in jobs),
        queues=tuple(_queue_summaries(ledger, waits)),
        remarks=tuple(sorted(remarks, key=lambda remark: (remark.at, remark.job))),
        runs=len(ledger.runs),
        most_at_once=most,
        busiest_at=at,
    )


def _wait(job: JobDefinition, run: LedgerRun) -> timedelta | None:
    if run.started_at is None:
        return None
    asked = run.created_at
    if run.scheduled_for is not None:
        asked = run.scheduled_for + fire_delay(job.name, run.scheduled_for, job.jitter)
    return max(run.started_at - asked, timedelta(0))


def _job_summary(
    job: JobDefinition,
    runs: Sequence[LedgerRun],
    attempts_of: Mapping[int, Sequence[LedgerAttempt]],
    waits: Mapping[int, timedelta],
) -> JobSummary:
    states = [run.state for run in runs]
    own = sorted(waits[run.id] for run in runs if run.id in waits)
    attempts = [attempt for run in runs for attempt in attempts_of[run.id]]
    lengths = [each.finished_at - each.started_at for each in attempts if each.finished_at is not None]
    retries = sum(before.outcome in _RETRIED for run in runs for before in list(attempts_of[run.id])[:-1])
    return JobSummary(
        job=job.name,
        queue=job.queue,
        fires=sum(run.fire_count for run in runs if run.scheduled_for is not None),
        succeeded=states.count(RunState.SUCCEEDED.value),
        failed=states.count(RunState.FAILED.value),
        missed=sum(run.fire_count for run in runs if run.state == RunState.MISSED.value),
        overlaps=states.count(RunState.SKIPPED.value),
        catch_ups=sum(run.created_by == CreatedBy.CATCH_UP.value and run.fence > 0 for run in runs),
        retries=retries,
        unfinished=sum(not RunState(state).is_final for state in states),
        typical_wait=own[len(own) // 2] if own else None,
        tail_wait=own[min(int(len(own) * _TAIL), len(own) - 1)] if own else None,
        longest_wait=own[-1] if own else None,
        longest_run=max(lengths, default=None),
        busy=sum(lengths, timedelta(0)),
    )


def _queue_summaries(ledger: Ledger, waits: Mapping[int, timedelta]) -> Iterable[QueueSummary]:
    runs = {run.id: run for run in ledger.runs}
    by_queue: dict[str, list[LedgerAttempt]] = defaultdict(list)
    for attempt in ledger.attempts:
        by_queue[runs[attempt.run_id].queue].append(attempt)
    for queue, attempts in sorted(by_queue.items()):
        ids = {attempt.run_id for attempt in attempts} & waits.keys()
        slowest = max(ids, key=lambda run_id: (waits[run_id], -run_id), default=None)
        yield QueueSummary(
            queue=queue,
            started=len(ids),
            most_at_once=_most_at_once(attempts)[0],
            longest_wait=None if slowest is None else waits[slowest],
            longest_wait_job=None if slowest is None else runs[slowest].schedule_id,
        )


def _most_at_once(attempts: Iterable[LedgerAttempt]) -> tuple[int, datetime | None]:
    changes: list[tuple[datetime, int]] = []
    for attempt in attempts:
        changes.append((attempt.started_at, 1))
        if attempt.finished_at is not None:
            changes.append((attempt.finished_at, -1))
    running, most, at = 0, 0, None
    for moment, change in sorted(changes):
        running += change
        if running > most:
            most, at = running, moment
    return most, at


def _remarks(job: JobDefinition, run: LedgerRun, waits: Mapping[int, timedelta]) -> Iterable[Remark]:
    at = run.scheduled_for or run.created_at
    wait = waits.get(run.id, timedelta(0))
    if run.state == RunState.MISSED.value:
        why = "its start deadline passed" if run.reason == Reason.START_DEADLINE.value else "nobody was there to run it"
        last = run.scheduled_until
        many = f"{run.fire_count} fires up to {last:%Y-%m-%d %H:%M}Z, " if last and run.fire_count > 1 else ""
        yield Remark(at, job.name, "missed", f"{many}{why}")
    elif run.state == RunState.SKIPPED.value:
        yield Remark(at, job.name, "overlap", "the run before it was unfinished")
    elif run.state == RunState.FAILED.value:
        yield Remark(at, job.name, "failed", f"after {run.attempt} of {run.max_attempts} attempts ({run.reason})")
    elif run.created_by == CreatedBy.CATCH_UP.value and run.started_at is not None:
        yield Remark(at, job.name, "catch-up", f"ran at {run.started_at:%Y-%m-%d %H:%M:%S}Z")
    elif wait > _LATE:
        yield Remark(at, job.name, "late", f"waited {round(wait.total_seconds())} s to start")
