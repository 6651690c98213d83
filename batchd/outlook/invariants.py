"""What is true of every ledger, whatever happened: sentences that say where it is not, none when all is well.

Each rule is worked out anew from the jobs' definitions, by other means than the planner's: fire times are counted out
one by one, limits are swept over the attempts in the order of time.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from batchd.domain.attempt import AttemptOutcome
from batchd.domain.catch_up import SKIP_DEADLINE
from batchd.domain.job import CatchUp, JobDefinition, Overlap
from batchd.domain.queue import QueueRules, Rate
from batchd.domain.retry import delay_after
from batchd.domain.run import EXTERNAL_KIND, CreatedBy, Reason, RunState
from batchd.domain.schedule import fire_delay, parse_schedule
from batchd.store.ledger import Ledger, LedgerAttempt, LedgerRun

_QUEUE_DEPTH = 2
_TICK = timedelta(milliseconds=2)
"""SQLite's clock has milliseconds, and a moment may be rounded twice."""

_BY_SCHEDULE = frozenset({CreatedBy.SCHEDULE.value, CreatedBy.CATCH_UP.value})
_COUNTED = frozenset({AttemptOutcome.FAILED.value, AttemptOutcome.TIMED_OUT.value})
_GIVEN_BACK = frozenset({AttemptOutcome.RELEASED.value, AttemptOutcome.LOST.value})


@dataclass(frozen=True, slots=True)
class Expected:
    """What the ledger is held against.

    `began_at`: the jobs fire after it. `clock_error`: how far a daemon's clock was ever from the store's, and how long
    it took between looking and planning. `rules` of the queues hold in all daemons together; `is_settled`: enough quiet
    time has passed at the end that nothing may be left waiting.
    """

    jobs: Sequence[JobDefinition]
    began_at: datetime
    clock_error: timedelta = timedelta(0)
    rules: Mapping[str, QueueRules] = field(default_factory=dict)
    is_settled: bool = False


def broken_rules(ledger: Ledger, expected: Expected) -> list[str]:
    """Return where the ledger breaks a rule."""
    jobs = {job.name: job for job in expected.jobs}
    runs_of: dict[str, list[LedgerRun]] = defaultdict(list)
    for run in ledger.runs:
        if run.schedule_id is not None:
            runs_of[run.schedule_id].append(run)
    attempts_of: dict[int, list[LedgerAttempt]] = defaultdict(list)
    for attempt in ledger.attempts:
        attempts_of[attempt.run_id].append(attempt)
    found = [f"{name}: cannot be planned: {why}" for name, why in ledger.errors.items()]
    for name, job in jobs.items():
        fires = [run for run in runs_of[name] if run.created_by in _BY_SCHEDULE]
        found += _fires_accounted_for(job, fires, ledger.next_run_at.get(name), expected.began_at)
        found += _overlap_kept(job, runs_of[name])
        found += _catch_up_kept(job, fires, expected.clock_error)
        found += _starts_in_time(job, fires, attempts_of)
        found += [line for run in runs_of[name] for line in _retries_kept(job, run, attempts_of[run.id])]
    for run in ledger.runs:
        found += _attempts_agree(run, attempts_of[run.id])
    found += _limits_kept(ledger, expected.rules)
    return [*found, *(_nothing_left(ledger) if expected.is_settled else ())]


def _fires_accounted_for(
    job: JobDefinition, rows: Sequence[LedgerRun], next_run_at: datetime | None, began_at: datetime
) -> Iterable[str]:
    """Each fire time stands in exactly one row, up to `next_run_at`, which is the first that stands in none."""
    if job.schedule is None or not job.enabled:
        return
    rule = parse_schedule(job.schedule, job.timezone)
    if rule.is_reboot:
        return
    coming = rule.next_after(began_at)
    for row in sorted(rows, key=lambda row: row.scheduled_for or began_at):
        if row.scheduled_for is None or row.scheduled_for != coming:
            yield f"{job.name}: {coming} is followed in the ledger by {row.scheduled_for} (run {row.id}, {row.state})"
            return
        last: datetime | None = row.scheduled_for
        count = 1
        while last is not None and last < (row.scheduled_until or row.scheduled_for):
            last, count = rule.next_after(last), count + 1
        if last != (row.scheduled_until or row.scheduled_for) or count != row.fire_count:
            yield f"{job.name}: run {row.id} stands for {row.fire_count} fires up to {row.scheduled_until}, not {count}"
        coming = None if last is None else rule.next_after(last)
    if next_run_at != coming:
        yield f"{job.name}: next_run_at is {next_run_at}, but the first fire without a row is {coming}"


def _overlap_kept(job: JobDefinition, rows: Sequence[LedgerRun]) -> Iterable[str]:
    """Say which fires were skipped, or were not, although as many runs were unfinished as the policy allows, or not."""
    allowed = {Overlap.SKIP: 1, Overlap.QUEUE: _QUEUE_DEPTH, Overlap.ALLOW: None}[job.overlap]
    if job.kind == EXTERNAL_KIND:
        return
    for row, others in _each_with_unfinished(rows):
        is_skipped = row.state == RunState.SKIPPED.value
        if row.created_by not in _BY_SCHEDULE or (row.state == RunState.MISSED.value and row.fence == 0):
            continue
        earlier = [other for other in others if other.created_at < row.created_at]
        before = sum(each.finished_at is None or each.finished_at > row.created_at + _TICK for each in earlier)
        surely = sum(each.finished_at is None or each.finished_at >= row.created_at - _TICK for each in earlier)
        if is_skipped and (allowed is None or surely < allowed):
            yield f"{job.name}: run {row.id} was skipped while {surely} were unfinished ({job.overlap.value})"
        elif not is_skipped and allowed is not None and before >= allowed:
            yield f"{job.name}: run {row.id} was queued while {before} were unfinished ({job.overlap.value})"


def _each_with_unfinished(rows: Sequence[LedgerRun]) -> Iterable[tuple[LedgerRun, list[LedgerRun]]]:
    """Return each row, and those before it that may have been unfinished then; what was skipped never was."""
    ordered = sorted(rows, key=lambda row: row.id)
    # The store's clock may have been stepped back: what has ended before a row may not have before a later one.
    earliest = list(itertools.accumulate((row.created_at for row in reversed(ordered)), min))[::-1]
    unfinished: list[LedgerRun] = []
    for row, moment in zip(ordered, earliest, strict=True):
        unfinished = [each for each in unfinished if each.finished_at is None or each.finished_at >= moment - _TICK]
        yield row, unfinished
        if row.state != RunState.SKIPPED.value:
            unfinished.append(row)


def _catch_up_kept(job: JobDefinition, rows: Sequence[LedgerRun], error: timedelta) -> Iterable[str]:
    """Say what ran too late, and what was given up although it was not too late.

    A start of the daemon has one fire, which is queued once the store is there, however late; only its start deadline
    counts.
    """
    if job.schedule is not None and parse_schedule(job.schedule, job.timezone).is_reboot:
        return
    policy, deadline = job.catch_up, job.start_deadline
    if policy.mode is CatchUp.SKIP and deadline is None:
        deadline = SKIP_DEADLINE
    most = policy.max_runs if policy.mode is CatchUp.ALL else 1
    for together in _planned_together(rows):
        kept = [row for row in together if not _is_missed_range(row)]
        ranges = [row for row in together if _is_missed_range(row)]
        if len(kept) > most:
            yield f"{job.name}: {len(kept)} fires were caught up together, and {most} may be"
        oldest = deadline
        if policy.mode is CatchUp.ALL:
            oldest = policy.max_age if deadline is None else min(deadline, policy.max_age)
        for row in kept:
            age = row.created_at - (row.scheduled_for or row.created_at)
            if oldest is not None and age > oldest + error + _TICK:
                yield f"{job.name}: run {row.id} was queued {age} after its fire time, and {oldest} is the most"
        for row in ranges:
            last = row.scheduled_until or row.scheduled_for or row.created_at
            is_too_old = oldest is not None and row.created_at - last > oldest - error - _TICK
            if not is_too_old and len(kept) < most:
                yield f"{job.name}: run {row.id} gave up the fire of {last}, which was not too old"


def _planned_together(rows: Sequence[LedgerRun]) -> Iterable[list[LedgerRun]]:
    """Return the rows transaction by transaction; two daemons with different clocks may have planned in one instant.

    The range of what was given up is written first of its transaction, and what is queued together is `catch_up`.
    """
    planned: dict[datetime, list[LedgerRun]] = defaultdict(list)
    for row in sorted(rows, key=lambda each: each.id):
        planned[row.created_at].append(row)
    for at_once in planned.values():
        ranges = [row.id for row in at_once if _is_missed_range(row)]
        by_range = itertools.groupby(at_once, key=lambda row: sum(number <= row.id for number in ranges))
        for together in (list(group) for _, group in by_range):
            if any(row.created_by == CreatedBy.CATCH_UP.value for row in together):
                yield [row for row in together if not _is_single(row)]
                yield from ([row] for row in together if _is_single(row))
            else:
                yield from ([row] for row in together)


def _is_single(row: LedgerRun) -> bool:
    """Return whether the row was queued alone, as the one fire that was due."""
    return row.created_by == CreatedBy.SCHEDULE.value and row.state != RunState.SKIPPED.value


def _is_missed_range(row: LedgerRun) -> bool:
    return row.state == RunState.MISSED.value and row.reason == Reason.CATCH_UP.value


def _starts_in_time(
    job: JobDefinition, rows: Sequence[LedgerRun], attempts_of: Mapping[int, Sequence[LedgerAttempt]]
) -> Iterable[str]:
    """No run starts before its fire time and jitter, nor after its deadline."""
    for row in rows:
        if row.scheduled_for is None or not attempts_of[row.id]:
            continue
        first = attempts_of[row.id][0].started_at
        delay = fire_delay(job.name, row.scheduled_for, job.jitter)
        if first + _TICK < row.created_at + delay:
            yield f"{job.name}: run {row.id} started {row.created_at + delay - first} before its jitter was over"
        if job.start_deadline is not None and first > row.scheduled_for + delay + job.start_deadline + _TICK:
            yield f"{job.name}: run {row.id} started at {first}, after its start deadline"


def _retries_kept(job: JobDefinition, run: LedgerRun, attempts: Sequence[LedgerAttempt]) -> Iterable[str]:
    """No more attempts than allowed, numbered without a gap, each after its back-off."""
    counted = [attempt for attempt in attempts if attempt.outcome not in _GIVEN_BACK]
    numbers = [attempt.number for attempt in counted]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"{job.name}: the attempts of run {run.id} are numbered {numbers}"
    if len(numbers) > run.max_attempts:
        yield f"{job.name}: run {run.id} had {len(numbers)} attempts of {run.max_attempts}"
    for before, after in itertools.pairwise(attempts):
        if before.outcome not in _COUNTED or before.finished_at is None:
            continue
        wait = delay_after(job.retry, before.number, seed=str(run.id))
        if after.started_at + _TICK < before.finished_at + wait:
            came = after.started_at - before.finished_at
            yield f"{job.name}: attempt {after.number} of run {run.id} came {came} after a failure, before its {wait}"


def _attempts_agree(run: LedgerRun, attempts: Sequence[LedgerAttempt]) -> Iterable[str]:
    """Say where a fence does not grow by one with each claim, attempts overlap, or the last one tells another end."""
    fences = [attempt.fence for attempt in attempts]
    if fences != list(range(1, run.fence + 1)):
        yield f"run {run.id}: its fence is {run.fence}, and its attempts have {fences}"
    for before, after in itertools.pairwise(attempts):
        if before.finished_at is None or before.finished_at > after.started_at + _TICK:
            yield f"run {run.id}: attempt {after.fence} began while {before.fence} was at work"
    wins = [attempt.fence for attempt in attempts if attempt.outcome == AttemptOutcome.SUCCEEDED.value]
    if wins != ([run.fence] if run.state == RunState.SUCCEEDED.value else []):
        yield f"run {run.id} is {run.state}, and its attempts {wins} of {run.fence} succeeded"
    is_open = bool(attempts) and attempts[-1].outcome is None
    if is_open != (run.state == RunState.RUNNING.value):
        yield f"run {run.id} is {run.state}, and its last attempt is {'open' if is_open else 'over'}"
    if (run.finished_at is None) == RunState(run.state).is_final:
        yield f"run {run.id} is {run.state} and has finished_at {run.finished_at}"
    used = [attempt.outcome for attempt in attempts if attempt.outcome in _COUNTED]
    has_failed = run.state == RunState.FAILED.value and run.reason in {Reason.ERROR.value, Reason.TIMEOUT.value}
    if has_failed and run.attempt != len(used):
        yield f"run {run.id} failed at attempt {run.attempt}, and {len(used)} of its attempts did"


def _limits_kept(ledger: Ledger, rules: Mapping[str, QueueRules]) -> Iterable[str]:
    """Keys, mutexes, places and rates, swept over all attempts in the order of time."""
    runs = {run.id: run for run in ledger.runs}
    attempts = [(attempt, runs[attempt.run_id]) for attempt in ledger.attempts if attempt.run_id in runs]
    yield from _at_once(attempts, "the key", lambda run: run.concurrency_key, lambda _key: 1)
    yield from _at_once(attempts, "the mutex", lambda run: run.mutex, lambda _mutex: 1)
    yield from _at_once(attempts, "queue", lambda run: run.queue, lambda queue: _rules(rules, queue).max_running)
    yield from _at_once(
        attempts,
        "queue and key",
        lambda run: None if run.limit_key is None else f"{run.queue}/{run.limit_key}",
        lambda name: _rules(rules, name.partition("/")[0]).max_running_per_key,
    )
    for queue, each in rules.items():
        of_queue = [(attempt, run) for attempt, run in attempts if run.queue == queue]
        if each.rate is not None:
            yield from _rate_kept(queue, [attempt for attempt, _ in of_queue], each.rate)
        if each.rate_per_key is not None:
            for key in sorted({run.limit_key for _, run in of_queue if run.limit_key is not None}):
                keyed = [attempt for attempt, run in of_queue if run.limit_key == key]
                yield from _rate_kept(f"{queue}/{key}", keyed, each.rate_per_key)


def _rules(rules: Mapping[str, QueueRules], queue: str) -> QueueRules:
    return rules.get(queue, QueueRules())


def _at_once(
    attempts: Sequence[tuple[LedgerAttempt, LedgerRun]],
    what: str,
    name_of: Callable[[LedgerRun], str | None],
    most_of: Callable[[str], int | None],
) -> Iterable[str]:
    changes: dict[str, list[tuple[datetime, int, int]]] = defaultdict(list)
    for attempt, run in attempts:
        name = name_of(run)
        if name is None or most_of(name) is None:
            continue
        changes[name].append((attempt.started_at, 1, run.id))
        if attempt.finished_at is not None:
            changes[name].append((max(attempt.finished_at - _TICK, attempt.started_at), -1, run.id))
    for name, moments in changes.items():
        most = most_of(name) or 0
        running = 0
        for moment, change, run_id in sorted(moments, key=lambda each: (each[0], each[1])):
            running += change
            if running > most:
                yield f"{what} {name}: {running} run at {moment}, and {most} may (run {run_id} among them)"
                break


def _rate_kept(name: str, attempts: Sequence[LedgerAttempt], rate: Rate) -> Iterable[str]:
    starts = sorted(attempt.started_at for attempt in attempts)
    for first, one_too_many in zip(starts, starts[rate.count :], strict=False):
        if one_too_many - first < rate.period - _TICK:
            yield f"{name}: {rate.count + 1} starts between {first} and {one_too_many}, within {rate.period}"
            return


def _nothing_left(ledger: Ledger) -> Iterable[str]:
    """Once all is quiet, every run has ended."""
    for run in ledger.runs:
        if not RunState(run.state).is_final:
            waits = f", waits for {run.waits_for}" if run.waits_for else ""
            yield f"run {run.id} of {run.schedule_id} is still {run.state}{waits}"
