"""Ending attempts: run, attempt and outbox row change together, and only under the right fence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, update

from batchd.db.engine import Database
from batchd.domain.attempt import AttemptError, AttemptOutcome, Decision
from batchd.domain.job import JsonObject
from batchd.domain.run import RunState
from batchd.store import outbox
from batchd.store.claims import Claim
from batchd.store.schema import attempts, runs

_EVENTS = {
    RunState.SUCCEEDED: "run.finished",
    RunState.FAILED: "run.finished",
    RunState.CANCELLED: "run.cancelled",
    RunState.QUARANTINED: "run.quarantined",
    RunState.QUEUED: "run.retrying",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended and what becomes of its run. `result` is kept with a failure as well.

    `checkpointed` names the databases in which the attempt has kept checkpoints.
    """

    claim: Claim
    outcome: AttemptOutcome
    decision: Decision
    result: JsonObject | None
    error: AttemptError | None
    checkpointed: tuple[str, ...] = ()


def finish(store: Database, endings: Sequence[Ending]) -> frozenset[int]:
    """Record the endings in one transaction; return the ids of the runs that were still this daemon's own.

    An ending whose run is not returned matched no row: its lease was lost, and whoever holds the run now records it.
    """
    with store.writing() as connection:
        recorded = [
            ending
            for ending in sorted(endings, key=lambda ending: ending.claim.run_id)
            if _finish_run(connection, store, ending)
        ]
        for ending in recorded:
            _finish_attempt(connection, store, ending)
        outbox.add_all(connection, store, [_notice(ending) for ending in recorded])
    return frozenset(ending.claim.run_id for ending in recorded)


def _finish_run(connection: Connection, store: Database, ending: Ending) -> bool:
    decision, claimed = ending.decision, ending.claim
    changes: dict[str, object] = {
        "state": decision.state.value,
        "reason": decision.reason and decision.reason.value,
        "error": ending.error and ending.error.message,
        "lease_until": None,
        "losses": 0,
        "cancel_requested_at": None,
    }
    if decision.retry_in is not None:
        changes["available_at"] = store.dialect.now_plus(decision.retry_in.total_seconds())
        changes["worker"] = None
    else:
        changes["finished_at"] = store.dialect.now()
    if ending.result is not None:
        changes["result"] = ending.result
    finished = connection.execute(
        update(runs)
        .where(runs.c.id == claimed.run_id, runs.c.fence == claimed.fence, runs.c.state == RunState.RUNNING.value)
        .values(changes)
    )
    return finished.rowcount == 1


def _finish_attempt(connection: Connection, store: Database, ending: Ending) -> None:
    error = ending.error
    connection.execute(
        update(attempts)
        .where(attempts.c.run_id == ending.claim.run_id, attempts.c.fence == ending.claim.fence)
        .values(
            outcome=ending.outcome.value,
            finished_at=store.dialect.now(),
            error_type=error and error.type,
            error_message=error and error.message,
            error_traceback=error and error.traceback,
        )
    )


def _notice(ending: Ending) -> JsonObject:
    claimed, decision = ending.claim, ending.decision
    return outbox.notice(
        _EVENTS[decision.state],
        run_id=claimed.run_id,
        schedule_id=claimed.job,
        state=decision.state.value,
        reason=decision.reason and decision.reason.value,
        attempt=claimed.attempt,
        error=ending.error and ending.error.message,
    )
