"""Giving claimed runs back: fenced, and without an attempt used up."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, and_, select, update

from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome
from batchd.domain.run import Reason, RunState
from batchd.store import outbox
from batchd.store.claimed import Claim
from batchd.store.schema import attempts, runs


def release(store: Database, claims: Collection[Claim]) -> None:
    """Give claimed runs back as they were: available at once, no attempt used up. One transaction, fenced.

    A run that somebody wants cancelled is cancelled instead.
    """
    if claims:
        with store.writing() as connection:
            _release(connection, store, [(claimed.run_id, claimed.fence, claimed.job) for claimed in claims])


def release_orphans(store: Database, worker: str, known: Collection[int]) -> tuple[int, ...]:
    """Give back the runs that are claimed for the worker without its knowing; return their ids. One transaction.

    That is what a claim leaves behind whose commit succeeded while the answer got lost. `known` are the runs that the
    worker has in hand; nothing may be claimed for it meanwhile.
    """
    return _release_those(store, worker, runs.c.id.not_in(known))


def release_unread(store: Database, worker: str, ids: Collection[int]) -> None:
    """Give back what the worker has claimed and cannot read. One transaction."""
    _release_those(store, worker, runs.c.id.in_(ids))


def _release_those(store: Database, worker: str, which: ColumnElement[bool]) -> tuple[int, ...]:
    with store.writing() as connection:
        rows = connection.execute(
            select(runs.c.id, runs.c.fence, runs.c.schedule_id)
            .where(runs.c.state == RunState.RUNNING.value, runs.c.worker == worker, which)
            .with_for_update()
        ).all()
        _release(connection, store, [(row.id, row.fence, row.schedule_id) for row in rows])
    return tuple(row.id for row in rows)


def _release(connection: Connection, store: Database, held: Sequence[tuple[int, int, str | None]]) -> None:
    for run_id, fence, job in sorted(held):
        outcome = _release_one(connection, store, run_id, fence)
        if outcome is None:
            continue  # not ours any more
        connection.execute(
            update(attempts)
            .where(attempts.c.run_id == run_id, attempts.c.fence == fence)
            .values(outcome=outcome.value, finished_at=store.dialect.now())
        )
        outbox.add(connection, store, f"run.{outcome.value}", run_id, job, {})


def _release_one(connection: Connection, store: Database, run_id: int, fence: int) -> AttemptOutcome | None:
    """Return what became of the attempt, or None when the run has another fence by now."""
    mine = and_(runs.c.id == run_id, runs.c.fence == fence, runs.c.state == RunState.RUNNING.value)
    released = connection.execute(
        update(runs)
        .where(mine, runs.c.cancel_requested_at.is_(None))
        .values(state=RunState.QUEUED.value, attempt=runs.c.attempt - 1, worker=None, lease_until=None)
    )
    if released.rowcount:
        return AttemptOutcome.RELEASED
    cancelled = connection.execute(
        update(runs)
        .where(mine)
        .values(
            state=RunState.CANCELLED.value,
            reason=Reason.REQUESTED.value,
            finished_at=store.dialect.now(),
            lease_until=None,
        )
    )
    return AttemptOutcome.CANCELLED if cancelled.rowcount else None
