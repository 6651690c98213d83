"""Dead letters by the thousand: runs that ended badly are queued again, or put away, all of them or none.

A run that was put away is cancelled for the reason `discarded`: it stays in the ledger until retention takes it, and no
list of failures shows it any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, not_, or_, select, update
from sqlalchemy.exc import IntegrityError

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.run import DISCARDABLE, UNFINISHED, CreatedBy, Reason, RunState
from batchd.store import audit, outbox
from batchd.store.audit import Actor
from batchd.store.control import OF_ENDED, NotPossible, RunUnknown
from batchd.store.schema import runs, schedules

_UNFINISHED = [state.value for state in sorted(UNFINISHED)]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which runs: in one of the states; of a job, a queue, a parent; that ended (or were queued) since a moment."""

    states: frozenset[RunState]
    job: str | None = None
    queue: str | None = None
    since: datetime | None = None
    run_id: int | None = None
    parent_id: int | None = None

    def where(self) -> ColumnElement[bool]:
        """Return it as a condition on `batchd_runs`."""
        wanted: list[ColumnElement[bool]] = [runs.c.state.in_([state.value for state in sorted(self.states)])]
        if self.job is not None:
            wanted.append(runs.c.schedule_id == self.job)
        if self.queue is not None:
            wanted.append(runs.c.queue == self.queue)
        if self.run_id is not None:
            wanted.append(runs.c.id == self.run_id)
        if self.parent_id is not None:
            wanted.append(runs.c.parent_id == self.parent_id)
        if self.since is not None:
            wanted.append(func.coalesce(runs.c.finished_at, runs.c.created_at) >= self.since)
        return and_(*wanted)


@dataclass(frozen=True, slots=True)
class Done:
    """How many runs were changed, and how many were left as they are, since they cannot be."""

    changed: int
    left: int


def count(store: Database, selection: Selection) -> int:
    """Return how many runs there are of the selection now."""
    with store.reading() as connection:
        return _count(connection, selection)


def retry_all(store: Database, selection: Selection, *, created_by: CreatedBy, by: Actor | None = None) -> Done:
    """Queue the runs again, in one transaction, each with as many attempts as its job gives a new run.

    Left alone: runs of a job that is gone from the config, and of each unique key all but the newest, or all of them
    while an unfinished run has it. Raises NotPossible, and changes nothing, when such a run comes in between.
    """
    try:
        return _retry_all(store, selection, created_by, by)
    except IntegrityError as error:
        raise NotPossible(
            "nothing was queued again: a run that does the same work was queued in this moment", hint="try again"
        ) from error


def _retry_all(store: Database, selection: Selection, created_by: CreatedBy, by: Actor | None) -> Done:
    with store.writing() as connection:
        before = _count(connection, selection)
        now = store.dialect.now()
        of_job = select(schedules.c.max_attempts).where(schedules.c.id == runs.c.schedule_id).scalar_subquery()
        left = runs.c.max_attempts - runs.c.attempt
        budget = func.coalesce(of_job, case((left > 0, left), else_=runs.c.max_attempts))
        changed = connection.execute(
            update(runs)
            .where(selection.where(), _may_come_back(selection))
            .values(
                **dict.fromkeys(OF_ENDED),
                state=RunState.QUEUED.value,
                available_at=now,
                max_attempts=runs.c.attempt + budget,
                losses=0,
            )
            .returning(runs.c.id, runs.c.schedule_id, runs.c.kind, runs.c.attempt)
        ).all()
        facts = {"state": RunState.QUEUED.value, "requested_by": created_by.value}
        _tell(connection, store, "run.retrying", changed, facts)
        _note(connection, store, by, "retry", selection, [row.id for row in changed])
        if changed:
            store.dialect.notify(connection, [Topic.RUNS])
    return Done(len(changed), before - len(changed))


def discard_one(store: Database, run_id: int, *, by: Actor | None = None) -> None:
    """Put one run away; raises NotPossible for one that runs or is well, RunUnknown for one that there is not."""
    done = discard_all(store, Selection(DISCARDABLE, run_id=run_id), by=by)
    if done.changed:
        return
    with store.reading() as connection:
        state = connection.execute(select(runs.c.state).where(runs.c.id == run_id)).scalar_one_or_none()
    if state is None:
        raise RunUnknown(f"there is no run {run_id}", hint="`batchd runs` lists the newest ones; old ones are pruned")
    wanted = ", ".join(sorted(DISCARDABLE))
    raise NotPossible(f"run {run_id} is {state}", hint=f"only these can be put away: {wanted}")


def discard_all(store: Database, selection: Selection, *, by: Actor | None = None) -> Done:
    """Put the runs away, in one transaction; the states are among those of `domain.run.DISCARDABLE`."""
    with store.writing() as connection:
        before = _count(connection, selection)
        now = store.dialect.now()
        changed = connection.execute(
            update(runs)
            .where(selection.where())
            .values(
                state=RunState.CANCELLED.value,
                reason=Reason.DISCARDED.value,
                finished_at=func.coalesce(runs.c.finished_at, now, type_=runs.c.finished_at.type),
                waits_for=None,
            )
            .returning(runs.c.id, runs.c.schedule_id, runs.c.kind, runs.c.attempt)
        ).all()
        facts = {"state": RunState.CANCELLED.value, "reason": Reason.DISCARDED.value}
        _tell(connection, store, "run.cancelled", changed, facts)
        _note(connection, store, by, "discard", selection, [row.id for row in changed])
    return Done(len(changed), before - len(changed))


def _note(
    connection: Connection, store: Database, by: Actor | None, action: str, selection: Selection, ids: Sequence[int]
) -> None:
    """Write one row of the audit record, however many runs it is about."""
    if not ids:
        return
    detail = {"runs": len(ids), "states": sorted(state.value for state in selection.states)}
    one = ids[0] if len(ids) == 1 else None
    audit.add(connection, store, by, action, job=selection.job, queue=selection.queue, run_id=one, detail=detail)


def _count(connection: Connection, selection: Selection) -> int:
    return int(connection.execute(select(func.count()).select_from(runs).where(selection.where())).scalar_one())


def _may_come_back(selection: Selection) -> ColumnElement[bool]:
    gone = select(schedules.c.id).where(schedules.c.removed_at.is_not(None))
    busy, newer = runs.alias("busy"), runs.alias("newer")
    is_busy = select(busy.c.id).where(busy.c.unique_key == runs.c.unique_key, busy.c.state.in_(_UNFINISHED)).exists()
    has_newer = (
        select(newer.c.id)
        .where(
            newer.c.unique_key == runs.c.unique_key,
            newer.c.id > runs.c.id,
            newer.c.state.in_([state.value for state in sorted(selection.states)]),
        )
        .exists()
    )
    return and_(
        or_(runs.c.schedule_id.is_(None), runs.c.schedule_id.not_in(gone)),
        or_(runs.c.unique_key.is_(None), and_(not_(is_busy), not_(has_newer))),
    )


def _tell(
    connection: Connection, store: Database, event: str, changed: Sequence[Row[Any]], facts: dict[str, str]
) -> None:
    notices = [
        outbox.notice(
            event,
            run_id=row.id,
            schedule_id=row.schedule_id,
            job=row.schedule_id or row.kind,
            attempt=row.attempt,
            **facts,
        )
        for row in changed
    ]
    outbox.add_all(connection, store, notices)
