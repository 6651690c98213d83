"""One attempt, from claim to ending. Nothing it does can harm the thread that it runs on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from batchd.db.storable import storable_json
from batchd.domain.attempt import DISCARDED, AttemptError, AttemptOutcome, Decision, decide, snoozed
from batchd.domain.job import JsonObject
from batchd.domain.retry import delay_after
from batchd.domain.run import Reason, RunState
from batchd.engine.context import AttemptContext, Surroundings
from batchd.engine.running import RunningAttempt
from batchd.errors import (
    BatchdError,
    Discard,
    JobError,
    LeaseLost,
    ParamsInvalid,
    Retry,
    RunInterrupted,
    Snooze,
    StopReason,
    has_beneath,
)
from batchd.jobs.contract import Kind
from batchd.jobs.failures import described
from batchd.jobs.fault_words import faults_text
from batchd.store.claimed import Claim
from batchd.store.finish import Ending

_RESULT_BYTES = 1_000_000
_BEHIND_PAUSE = timedelta(seconds=15)

_OUTCOMES = {
    StopReason.SHUTDOWN: AttemptOutcome.RELEASED,
    StopReason.TIMEOUT: AttemptOutcome.TIMED_OUT,
    StopReason.CANCELLED: AttemptOutcome.CANCELLED,
    StopReason.LEASE_LOST: AttemptOutcome.LOST,
}


@dataclass(frozen=True, slots=True)
class Catalog:
    """The kinds that this daemon knows, and how a run's stored params become whole again (secrets put back).

    `knows_queue` says whether this daemon, or another one of the store, knows a queue; `is_behind` whether the store
    has a job as another config than this daemon's has it; `is_elsewhere` whether another living daemon knows a kind.
    """

    kinds: Mapping[str, Kind[Any]]
    resolve_params: Callable[[str | None, JsonObject], JsonObject]
    knows_queue: Callable[[str], bool]
    is_behind: Callable[[str], bool] = lambda _job: False
    is_elsewhere: Callable[[str], bool] = lambda _kind: False


def execute(running: RunningAttempt, catalog: Catalog, around: Surroundings) -> Ending:
    """Run the attempt on this thread and return how it ended, without secrets; never raises."""
    try:
        ending = _executed(running, catalog, around)
    except Exception as fault:  # noqa: BLE001 (a row of nonsense must not end a worker thread)
        failed = Decision(RunState.FAILED, Reason.ERROR, None)
        ending = Ending(running.claim, AttemptOutcome.FAILED, failed, None, described(fault))
    error = ending.error
    if error is None and not ending.result:
        return ending
    if error is not None:
        error = AttemptError(error.type, around.mask(error.message), around.mask(error.traceback))
    return replace(ending, result=around.mask(ending.result), error=error)


def _executed(running: RunningAttempt, catalog: Catalog, around: Surroundings) -> Ending:
    context = AttemptContext(running, around)
    try:
        kind, params = _understood(running, catalog)
        running.raise_if_stopping()
        result = _plain(kind.run(params, context))
        return _ending(running, AttemptOutcome.SUCCEEDED, result=result)
    except LeaseLost:
        return _ending(running, AttemptOutcome.LOST)
    except ParamsInvalid as error:
        if _is_for_others(running.claim, catalog):
            return _left_to_others(running)
        quarantined = Decision(RunState.QUARANTINED, Reason.NOT_UNDERSTOOD, None)
        return Ending(running.claim, AttemptOutcome.FAILED, quarantined, None, described(error))
    except Discard as verdict:
        return Ending(running.claim, AttemptOutcome.CANCELLED, DISCARDED, None, described(verdict))
    except Snooze as verdict:
        later = snoozed(verdict.pause)
        kept = tuple(running.checkpointed)
        return Ending(running.claim, AttemptOutcome.RELEASED, later, None, described(verdict), kept)
    except BaseException as error:  # noqa: BLE001 (a job's SystemExit must not end a worker thread)
        if running.stop_reason is not None and (
            running.interrupts.reason is not None or has_beneath(error, RunInterrupted)
        ):
            # Whatever the kind, or a rollback on the way, made of it: the stop is the reason, not the error.
            return _interrupted(running, running.stop_reason)
        return _failed(running, error)


def _understood(running: RunningAttempt, catalog: Catalog) -> tuple[Kind[Any], Any]:
    claim = running.claim
    kind = catalog.kinds.get(claim.kind)
    if kind is None:
        raise ParamsInvalid(
            f"there is no kind {claim.kind!r} in this batchd; it has: {', '.join(sorted(catalog.kinds))}"
        )
    if not catalog.knows_queue(claim.queue):
        raise ParamsInvalid(f"there is no queue {claim.queue!r}", hint=f"write [queues.{claim.queue}] into the config")
    try:
        return kind, kind.params.model_validate(catalog.resolve_params(claim.job, claim.params))
    except ValidationError as error:
        faults = faults_text(error, kind.params.model_fields)
        raise ParamsInvalid(f"params of kind {claim.kind!r} are not understood: {faults}") from None
    except BatchdError as error:
        raise ParamsInvalid(error.message, hint=error.hint) from error


def _is_for_others(claim: Claim, catalog: Catalog) -> bool:
    if claim.job is not None and catalog.is_behind(claim.job):
        return True
    return claim.kind not in catalog.kinds and catalog.is_elsewhere(claim.kind)


def _left_to_others(running: RunningAttempt) -> Ending:
    """Put the run off: another daemon's config wrote its job, or another daemon has its kind, and can understand it."""
    said = "its job or kind is not in this daemon's config; another daemon may have it, or this one after a reload"
    later = snoozed(_BEHIND_PAUSE)
    return Ending(
        running.claim,
        AttemptOutcome.RELEASED,
        later,
        None,
        AttemptError("ConfigBehind", said, None),
        tuple(running.checkpointed),
    )


def _interrupted(running: RunningAttempt, reason: StopReason) -> Ending:
    if reason is StopReason.TIMEOUT:
        limit = running.claim.timeout
        seconds = limit.total_seconds() if limit else 0
        error = AttemptError("Timeout", f"the attempt took longer than its timeout of {seconds:g} s", None)
        return _ending(running, AttemptOutcome.TIMED_OUT, error=error)
    return _ending(running, _OUTCOMES[reason])


def _failed(running: RunningAttempt, error: BaseException) -> Ending:
    retryable = error.retryable if isinstance(error, JobError) else True
    result = _bounded(storable_json(error.result)) if isinstance(error, JobError) and error.result else None
    ending = _ending(running, AttemptOutcome.FAILED, retryable=retryable, result=result, error=described(error))
    if isinstance(error, Retry) and ending.decision.retry_in is not None:
        return replace(ending, decision=replace(ending.decision, retry_in=error.after))
    return ending


def _ending(
    running: RunningAttempt,
    outcome: AttemptOutcome,
    *,
    retryable: bool = True,
    result: JsonObject | None = None,
    error: AttemptError | None = None,
) -> Ending:
    claim = running.claim
    if outcome is AttemptOutcome.SUCCEEDED:
        delay = timedelta(0)
    else:
        delay = delay_after(claim.retry, claim.attempt, seed=str(claim.run_id))
    decision = decide(outcome, attempt=claim.attempt, max_attempts=claim.max_attempts, retryable=retryable, delay=delay)
    return Ending(claim, outcome, decision, result, error, tuple(running.checkpointed))


def _plain(result: Any) -> JsonObject:
    """Return the result as JSON that every store accepts; raises JobError for a kind that returns anything else."""
    if not result and (result is None or type(result) is dict):
        return {}
    try:
        plain = json.loads(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise JobError(f"the kind returned what is not JSON: {error}", retryable=False) from error
    if not isinstance(plain, dict):
        raise JobError(f"the kind returned {type(plain).__name__} instead of an object", retryable=False)
    return _bounded(storable_json(plain))


def _bounded(result: JsonObject) -> JsonObject:
    """Return the result, or what is left of one that is too large for a row: the work is done all the same."""
    size = len(json.dumps(result))
    return result if size <= _RESULT_BYTES else {"truncated": True, "size_bytes": size}
