"""Ending attempts: run, attempt and outbox row change together, and only under the right fence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, Double, Update, bindparam, select, update

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.attempt import AttemptError, AttemptOutcome, Decision
from batchd.domain.job import JsonObject
from batchd.domain.run import Reason, RunState
from batchd.errors import LeaseLost
from batchd.store import outbox
from batchd.store.claimed import Claim
from batchd.store.followers import queue_followers
from batchd.store.leases import Progress
from batchd.store.schema import attempts, runs

_EVENTS = {
    RunState.SUCCEEDED: "run.finished",
    RunState.FAILED: "run.finished",
    RunState.CANCELLED: "run.cancelled",
    RunState.QUARANTINED: "run.quarantined",
    RunState.QUEUED: "run.retrying",
}
_EVENTS_OF_REASONS = {Reason.DISCARDED: "run.discarded", Reason.SNOOZED: "run.snoozed"}
"""What the job itself decided has a name of its own."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended and what becomes of its run. `result` is kept with a failure as well.

    `checkpointed` names the databases in which the attempt has kept checkpoints; `progress` is its last,
    which goes into the row of a final run; `duration_seconds` and `rows` are only for whoever counts them.
    """

    claim: Claim
    outcome: AttemptOutcome
    decision: Decision
    result: JsonObject | None
    error: AttemptError | None
    checkpointed: tuple[str, ...] = ()
    duration_seconds: float = 0.0
    rows: int | None = None
    progress: Progress | None = None

    def measured(self, duration_seconds: float, rows: int | None, progress: Progress | None) -> Ending:
        """Return the ending with these; made by hand, for every run has one and `replace` takes three times as long."""
        return Ending(
            self.claim,
            self.outcome,
            self.decision,
            self.result,
            self.error,
            self.checkpointed,
            duration_seconds,
            rows,
            progress,
        )


def finish(store: Database, endings: Sequence[Ending]) -> tuple[Ending, ...]:
    """Record the endings in one transaction; return those of runs that were still this daemon's own, as recorded.

    An ending that is not returned matched no row: its lease was lost, and whoever holds the run now records it. One
    that an earlier call has recorded, while the answer to its commit got lost, is returned again. A run that somebody
    wants cancelled is not queued again: its ending is returned as cancelled.
    """
    ordered = sorted(endings, key=lambda ending: ending.claim.run_id)
    try:
        _finish_together(store, ordered)
    except LeaseLost:
        # Rare: find out whose it was, one by one.
        return tuple(_finish_singly(store, ordered))
    return tuple(ordered)


def _finish_together(store: Database, endings: Sequence[Ending]) -> None:
    """Record all endings, statements sent in batches; raises LeaseLost, and records nothing, when one is not ours."""
    with store.writing() as connection:
        for shape, has_progress in sorted({(_shape(ending), ending.progress is not None) for ending in endings}):
            alike = [each for each in endings if _shape(each) == shape and (each.progress is not None) is has_progress]
            finished = _finish_alike(connection, store, alike, shape)
            if finished != len(alike):
                raise LeaseLost(f"{len(alike) - finished} of {len(alike)} runs have been taken over or cancelled")
        _record(connection, store, endings)


def _finish_alike(connection: Connection, store: Database, endings: Sequence[Ending], shape: tuple[bool, ...]) -> int:
    """Record endings of one shape; return how many of them were ours."""
    if endings[0].decision.retry_in is not None:
        return connection.execute(_finish_statement(store, *shape), [_values(ending) for ending in endings]).rowcount
    return store.dialect.update_each(
        connection,
        runs,
        ["id", "fence"],
        [_final_row(ending) for ending in endings],
        where={"state": RunState.RUNNING.value},
        stamped=["finished_at"],
    )


def _final_row(ending: Ending) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": ending.claim.run_id,
        "fence": ending.claim.fence,
        "state": ending.decision.state.value,
        "reason": ending.decision.reason and ending.decision.reason.value,
        "error": ending.error and ending.error.message,
        "lease_until": None,
        "losses": 0,
        "cancel_requested_at": None,
    }
    if ending.progress is not None:
        # What the run said last, and nobody has written yet: a run that succeeded must not stand at 98 %.
        row |= {f"progress_{name}": value for name, value in asdict(ending.progress).items()}
    return row if ending.result is None else {**row, "result": ending.result}


def _finish_singly(store: Database, endings: Sequence[Ending]) -> list[Ending]:
    with store.writing() as connection:
        known = [ending for ending in endings if _is_recorded(connection, ending)]
        fresh = [
            recorded
            for ending in endings
            if ending not in known and (recorded := _finish_one(connection, store, ending)) is not None
        ]
        _record(connection, store, fresh)
    return known + fresh


def _is_recorded(connection: Connection, ending: Ending) -> bool:
    """Return whether the attempt's row says already that it ended so."""
    claimed = ending.claim
    said = connection.execute(
        select(attempts.c.outcome).where(attempts.c.run_id == claimed.run_id, attempts.c.fence == claimed.fence)
    ).scalar_one_or_none()
    return said == ending.outcome.value


def _finish_one(connection: Connection, store: Database, ending: Ending) -> Ending | None:
    decision = ending.decision
    possible = [ending]
    if decision.retry_in is not None:
        possible.append(replace(ending, decision=Decision(RunState.CANCELLED, Reason.REQUESTED, None)))
    for each in possible:
        if connection.execute(_finish_statement(store, *_shape(each)), _values(each)).rowcount == 1:
            return each
    return None


def _record(connection: Connection, store: Database, endings: Sequence[Ending]) -> None:
    """Close the attempts' rows, tell of the endings, and queue what follows those that succeeded."""
    if not endings:
        return
    store.dialect.update_each(
        connection,
        attempts,
        ["run_id", "fence"],
        [
            {
                "run_id": ending.claim.run_id,
                "fence": ending.claim.fence,
                "outcome": ending.outcome.value,
                "error_type": ending.error and ending.error.type,
                "error_message": ending.error and ending.error.message,
                "error_traceback": ending.error and ending.error.traceback,
            }
            for ending in endings
        ],
        stamped=["finished_at"],
    )
    outbox.add_all(connection, store, [_notice(ending) for ending in endings])
    if any(ending.claim.is_waited_for for ending in endings):
        store.dialect.notify(connection, [Topic.RUNS])  # another daemon may have the run that waits for the place
    done = [ending for ending in endings if ending.decision.state is RunState.SUCCEEDED]
    queue_followers(connection, store, [(each.claim.run_id, each.claim.job, each.result) for each in done])


def _shape(ending: Ending) -> tuple[bool, bool, bool]:
    """Return what the statement depends on: is the run queued again, has it a result, is its attempt given back."""
    decision = ending.decision
    return decision.retry_in is not None, ending.result is not None, decision.reason is Reason.SNOOZED


def _finish_statement(store: Database, is_again: bool, has_result: bool, is_unused: bool) -> Update:  # noqa: FBT001
    changes: dict[str, Any] = {
        "state": bindparam("to"),
        "reason": bindparam("why"),
        "error": bindparam("message"),
        "lease_until": None,
        "losses": 0,
        "cancel_requested_at": None,
    }
    if is_again:
        changes["available_at"] = store.dialect.now_plus(bindparam("seconds", type_=Double()))
        changes["worker"] = None
        if is_unused:
            changes["attempt"] = runs.c.attempt - 1
    else:
        changes["finished_at"] = store.dialect.now()
    if has_result:
        changes["result"] = bindparam("outcome", type_=runs.c.result.type)
    mine = [runs.c.id == bindparam("run"), runs.c.fence == bindparam("token"), runs.c.state == RunState.RUNNING.value]
    if is_again:
        mine.append(runs.c.cancel_requested_at.is_(None))
    return update(runs).where(*mine).values(changes)


def _values(ending: Ending) -> dict[str, Any]:
    decision = ending.decision
    values: dict[str, Any] = {
        "run": ending.claim.run_id,
        "token": ending.claim.fence,
        "to": decision.state.value,
        "why": decision.reason and decision.reason.value,
        "message": ending.error and ending.error.message,
    }
    if decision.retry_in is not None:
        values["seconds"] = decision.retry_in.total_seconds()
    if ending.result is not None:
        values["outcome"] = ending.result
    return values


def _notice(ending: Ending) -> JsonObject:
    claimed, decision = ending.claim, ending.decision
    event = _EVENTS_OF_REASONS.get(decision.reason) if decision.reason else None
    return outbox.notice(
        event or _EVENTS[decision.state],
        run_id=claimed.run_id,
        schedule_id=claimed.job,
        state=decision.state.value,
        reason=decision.reason and decision.reason.value,
        kind=claimed.kind,
        queue=claimed.queue,
        attempt=claimed.attempt,
        error=ending.error and ending.error.message,
    )
