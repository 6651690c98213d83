"""Renewing leases, hearing of cancel requests, and taking back the runs of workers that fell silent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, false, not_, or_, select, update

from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome
from batchd.domain.run import EXTERNAL_KIND, Reason, RunState
from batchd.store import outbox
from batchd.store.schema import attempts, runs

MAX_LOSSES = 10
"""After so many claims in a row that ended without a word and without progress, a run is failed: it may be the one
that kills its daemons."""

_OF_LOST = (
    runs.c.id,
    runs.c.fence,
    runs.c.schedule_id,
    runs.c.kind,
    runs.c.queue,
    runs.c.attempt,
    runs.c.losses,
    runs.c.cancel_requested_at,
)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a heartbeat learned: whose lease goes on, and which of them somebody wants cancelled."""

    renewed: frozenset[int]
    cancel_requested: frozenset[int]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, as its kind counts."""

    done: int
    total: int | None
    note: str | None


def renew(store: Database, fences: Mapping[int, int], lease: timedelta) -> Renewal:
    """Renew the leases of the runs (id to fence) in one statement; a run that is not returned is lost.

    A lease that ran out may still be renewed as long as nobody else has claimed the run since.
    """
    if not fences:
        return Renewal(frozenset(), frozenset())
    with store.writing() as connection:
        # Locked in the order in which endings lock them, lest the two wait for each other.
        connection.execute(select(runs.c.id).where(_owned(fences)).order_by(runs.c.id).with_for_update())
        rows = connection.execute(
            update(runs)
            .where(_owned(fences))
            .values(lease_until=store.dialect.now_plus(lease.total_seconds()))
            .returning(runs.c.id, runs.c.fence, runs.c.cancel_requested_at)
        ).all()
    return Renewal(
        frozenset(row.id for row in rows), frozenset(row.id for row in rows if row.cancel_requested_at is not None)
    )


def cancel_requests(store: Database, run_ids: Collection[int]) -> frozenset[int]:
    """Return which of the runs somebody wants cancelled."""
    if not run_ids:
        return frozenset()
    with store.reading() as connection:
        found = connection.execute(
            select(runs.c.id).where(store.dialect.is_among(runs.c.id, run_ids), runs.c.cancel_requested_at.is_not(None))
        ).scalars()
        return frozenset(found)


def write_progress(store: Database, progress: Mapping[int, tuple[int, Progress]]) -> None:
    """Write the progress of runs (id to fence and progress) in one transaction; a stale fence writes nothing."""
    with store.writing() as connection:
        is_wanted = outbox.wants_progress(connection, store)
        for run_id, (fence, reached) in sorted(progress.items()):
            written = connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.fence == fence, runs.c.state == RunState.RUNNING.value)
                .values(
                    losses=case((_went_on(reached), 0), else_=runs.c.losses),
                    progress_done=reached.done,
                    progress_total=reached.total,
                    progress_note=reached.note,
                )
                .returning(runs.c.schedule_id, runs.c.kind, runs.c.queue, runs.c.attempt)
            ).one_or_none()
            if is_wanted and written is not None:
                facts = {"kind": written.kind, "queue": written.queue, "attempt": written.attempt}
                facts |= {"state": RunState.RUNNING.value, "done": reached.done, "total": reached.total}
                facts |= {"note": reached.note}
                outbox.add(connection, store, "run.progressed", run_id, written.schedule_id, facts)


def _went_on(reached: Progress) -> Any:
    return or_(runs.c.progress_done.is_(None), runs.c.progress_done < reached.done)


def reap_expired(store: Database, *, mine: Mapping[int, int], limit: int = 500) -> tuple[int, ...]:
    """Take back the runs whose lease has run out, but not `mine` (id to fence); return their ids. One transaction.

    The lost attempt gives its number back: the run is claimable at once and goes on from its checkpoint. After
    MAX_LOSSES in a row without progress it fails instead.
    """
    with store.writing() as connection:
        rows = connection.execute(
            select(*_OF_LOST)
            .where(runs.c.state == RunState.RUNNING.value, runs.c.lease_until < store.dialect.now(), not_(_are(mine)))
            .order_by(runs.c.lease_until)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        return _take_back(connection, store, rows)


def take_back_from(store: Database, worker_ids: Collection[str]) -> tuple[int, ...]:
    """Take back every run of workers that are known to be dead, lease or not; return the runs' ids."""
    if not worker_ids:
        return ()
    with store.writing() as connection:
        rows = connection.execute(
            select(*_OF_LOST)
            .where(runs.c.state == RunState.RUNNING.value, runs.c.worker.in_(worker_ids))
            .order_by(runs.c.id)
            .with_for_update(skip_locked=True)
        ).all()
        return _take_back(connection, store, rows)


def _take_back(connection: Connection, store: Database, rows: Sequence[Any]) -> tuple[int, ...]:
    now = store.dialect.now()
    notices = []
    for row in rows:
        state, reason = _state_after_loss(row)
        final = state is not RunState.QUEUED
        connection.execute(
            update(runs)
            .where(runs.c.id == row.id, runs.c.fence == row.fence, runs.c.state == RunState.RUNNING.value)
            .values(
                state=state.value,
                reason=reason and reason.value,
                attempt=runs.c.attempt - (0 if final else 1),
                losses=row.losses + 1,
                lease_until=None,
                worker=None,
                finished_at=now if final else None,
                error=_loss_message(row, reason),
            )
        )
        connection.execute(
            update(attempts)
            .where(and_(attempts.c.run_id == row.id, attempts.c.fence == row.fence))
            .values(outcome=AttemptOutcome.LOST.value, finished_at=now)
        )
        notices.append(
            outbox.notice(
                "run.lost",
                run_id=row.id,
                schedule_id=row.schedule_id,
                kind=row.kind,
                queue=row.queue,
                state=state.value,
                reason=reason and reason.value,
                attempt=row.attempt,
                error=_loss_message(row, reason),
                fence=row.fence,
            )
        )
    outbox.add_all(connection, store, notices)
    return tuple(row.id for row in rows)


def _state_after_loss(row: Row[Any]) -> tuple[RunState, Reason | None]:
    if row.cancel_requested_at is not None:
        return RunState.CANCELLED, Reason.REQUESTED
    if row.kind == EXTERNAL_KIND:
        return RunState.FAILED, Reason.LOST
    if row.losses + 1 >= MAX_LOSSES:
        return RunState.FAILED, Reason.LOST_TOO_OFTEN
    return RunState.QUEUED, None


def _loss_message(row: Row[Any], reason: Reason | None) -> str | None:
    if reason is Reason.LOST:
        return "whoever reported it died or fell silent before it said how it ended"
    if reason is not Reason.LOST_TOO_OFTEN:
        return None
    return f"{row.losses + 1} workers in a row died or fell silent while they ran it"


def _owned(fences: Mapping[int, int]) -> ColumnElement[bool]:
    """Return the condition "this run, running under this fence"."""
    return and_(runs.c.state == RunState.RUNNING.value, _are(fences))


def _are(fences: Mapping[int, int]) -> ColumnElement[bool]:
    """Return the condition "this run under this fence"; grouped by fence, since most runs have their first."""
    by_fence: dict[int, list[int]] = {}
    for run_id, fence in fences.items():
        by_fence.setdefault(fence, []).append(run_id)
    return or_(false(), *(and_(runs.c.fence == fence, runs.c.id.in_(ids)) for fence, ids in by_fence.items()))
