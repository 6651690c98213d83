"""Claiming runs: a lease, a fence token and an attempt row, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Insert,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    cast,
    false,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate

from batchd.db.dialect import Dialect, Failure
from batchd.db.engine import Database, brief_message
from batchd.db.storable import storable_text
from batchd.domain.job import JsonObject
from batchd.domain.queue import in_turn
from batchd.domain.run import Reason, RunState
from batchd.store import outbox
from batchd.store.claimed import CLAIM_COLUMNS, KEYS_LOCK, NONSENSE, Claim, ClaimRequest, claim_of
from batchd.store.claims_at_once import TakenAtOnce, take_at_once
from batchd.store.limits import Limits, first_parked
from batchd.store.schema import attempts, runs
from batchd.store.states import is_state

_UNREADABLE = (*NONSENSE, DataError)
"""What a row that somebody edited by hand can raise when it is read, or counted on beyond what its column holds."""

_LATE_AT_ONCE = 1_000
_PARKING_ROUNDS = 5
_PARKING_TRANSACTIONS = 10
"""How long one claim makes room among runs that wait for a full limit, before it lets the daemon look after itself."""


def claim(store: Database, request: ClaimRequest) -> tuple[Claim, ...]:
    """Claim up to `limit` runs, in the order of `domain.queue.in_turn`. One transaction.

    Two runs with the same concurrency key are never claimed together; where two daemons race for the same key, the
    unique index decides and the loser tries again one by one. A row that cannot even be read (somebody edited it) is
    quarantined and holds up no other. Shared limits are decided by `store.limits`.
    """
    return claim_and_look(store, request)[0]


def claim_and_look(store: Database, request: ClaimRequest) -> tuple[tuple[Claim, ...], timedelta | None]:
    """Do what `claim` does; return as well how long until another run may be claimed, as `next_available_at` says.

    Zero when as many were claimed as were asked for.
    """
    at_once = _taken_at_once(store, request)
    if at_once is not None and at_once.is_all:
        claimed, expected = at_once.claims, at_once.next_in
    else:
        claimed, expected = _claim_in_steps(store, request), None
        if len(claimed) < request.limit:
            return claimed, next_available_at(store)
    return claimed, timedelta(0) if len(claimed) == request.limit else expected


def _taken_at_once(store: Database, request: ClaimRequest) -> TakenAtOnce | None:
    try:
        return take_at_once(store, request)
    except Exception as error:
        if store.failure(error) not in {Failure.UNIQUE, Failure.ROW}:
            raise
        return None  # the one run in the way is found one by one


def _claim_in_steps(store: Database, request: ClaimRequest) -> tuple[Claim, ...]:
    try:
        return _claim_some(store, request)
    except IntegrityError:
        single = replace(request, limit=1)
        try:
            return _claim_some(store, single)
        except IntegrityError:
            return ()
    except _UNREADABLE:
        return _claim_one_by_one(store, request)


def _claim_some(store: Database, request: ClaimRequest) -> tuple[Claim, ...]:
    for _ in range(_PARKING_TRANSACTIONS):
        claimed, has_more = _claim(store, request)
        if claimed or not has_more:
            return claimed
    return ()


def _claim(store: Database, request: ClaimRequest, only: int | None = None) -> tuple[tuple[Claim, ...], bool]:
    """Return the claims, and whether there may be more behind runs that were too late or stood before a full limit."""
    with store.writing() as connection:
        store.dialect.follow_order(connection)
        limits = Limits(connection, store, request.rules)
        limits.look()
        limits.let_back()
        for _ in range(_PARKING_ROUNDS):
            chosen, has_blocked = _choose(connection, store, request, limits, only)
            if not chosen and not has_blocked:
                return (), False
            taken = _take(connection, store, request, limits, chosen) if chosen else ()
            if taken:
                return taken, True
            if chosen:
                # All of them were too late, and are `missed` now: look at those behind them.
                _expire(connection, store, runs.c.id.in_(_late_ids(store)))
            limits.look()
    return (), True


def _claim_one_by_one(store: Database, request: ClaimRequest) -> tuple[Claim, ...]:
    with store.writing() as connection:
        store.dialect.follow_order(connection)
        limits = Limits(connection, store, request.rules)
        limits.look()
        chosen, _ = _choose(connection, store, request, limits)
    claimed: list[Claim] = []
    for run_id in chosen:
        try:
            claimed += _claim(store, request, only=run_id)[0]
        except IntegrityError:
            continue  # another daemon was faster
        except _UNREADABLE as error:
            _quarantine(store, run_id, f"the row cannot be read: {brief_message(error)}")
    return tuple(claimed)


def _quarantine(store: Database, run_id: int, why: str) -> None:
    with store.writing() as connection:
        changed = connection.execute(
            update(runs)
            .where(runs.c.id == run_id, runs.c.state == RunState.QUEUED.value)
            .values(
                state=RunState.QUARANTINED.value,
                reason=Reason.NOT_UNDERSTOOD.value,
                error=storable_text(why),
                finished_at=store.dialect.now(),
            )
            .returning(runs.c.schedule_id)
        ).one_or_none()
        if changed is not None:
            state, reason = RunState.QUARANTINED.value, Reason.NOT_UNDERSTOOD.value
            facts: JsonObject = {"state": state, "reason": reason, "error": why}
            outbox.add(connection, store, "run.quarantined", run_id, changed.schedule_id, facts)


def _choose(
    connection: Connection, store: Database, request: ClaimRequest, limits: Limits, only: int | None = None
) -> tuple[list[int], bool]:
    """Return ids of claimable runs, locked, and whether others have been parked; `only` asks for that one.

    Queue by queue, each in the order of `batchd_runs_claim`: what waits in a queue that is full is not even looked at.
    """
    waiting = limits.waiting_queues()
    shared = limits.queue_room(waiting)
    room = {
        queue: max(0, min(each.get(queue, request.limit) for each in (request.room, shared)))
        for queue in waiting
        if queue in request.room or queue in shared
    }
    found: list[Any] = []
    for queue in waiting:
        most = min(request.limit, room.get(queue, request.limit))
        if most:
            found.extend(connection.execute(*_best(store, queue, most, only)))
    ordered = in_turn(
        found,
        request.rules,
        request.order,
        request.limit,
        lambda names, weights: request.random.choices(names, weights)[0],
    )
    admitted = limits.admit(ordered, room, request.limit)
    if admitted.blocked and only is None:
        queue_of = {row.id: row.queue for row in found}
        behind = {queue_of[run_id] for ids in admitted.blocked.values() for run_id in ids}
        limits.park(admitted, {queue: _best_of(store, queue) for queue in sorted(behind)})
    keyed = {row.id for row in found if row.concurrency_key is not None}
    if len(keyed.intersection(admitted.chosen)) > 1:
        store.dialect.lock_for_transaction(connection, KEYS_LOCK)
    return admitted.chosen, bool(admitted.blocked)


def _best(store: Database, queue: str, most: int, only: int | None) -> tuple[Select[Any], dict[str, Any]]:
    if only is None:
        return store.dialect.composed.once(_best_of_a_queue, store.dialect), {"in_queue": queue, "most": most}
    return _best_of(store, queue, only).limit(most), {}


def _best_of(store: Database, queue: str, only: int | None = None) -> Select[Any]:
    this_one = [] if only is None else [runs.c.id == only]
    return _in_order().where(runs.c.queue == queue, _is_due(store.dialect), *this_one)


def _best_of_a_queue(dialect: Dialect) -> Select[Any]:
    best = _in_order().where(runs.c.queue == bindparam("in_queue"), _is_due(dialect))
    return best.limit(bindparam("most", type_=Integer()))


def _is_due(dialect: Dialect) -> ColumnElement[bool]:
    """Return the condition with the clock read once, so that the index passes over what is not due by itself."""
    return runs.c.available_at <= select(dialect.now()).scalar_subquery()


def _in_order() -> Select[Any]:
    busy = runs.alias("busy")
    key_is_free = or_(
        runs.c.concurrency_key.is_(None),
        ~select(literal(1))
        .where(busy.c.concurrency_key == runs.c.concurrency_key, is_state(RunState.RUNNING, of=busy))
        .exists(),
    )
    # As they stand, whatever somebody has made of the row: to read it must not fail here, or no run is ever claimed.
    order = (cast(runs.c.priority, Integer).label("priority"), cast(runs.c.available_at, String).label("available"))
    return (
        select(runs.c.id, runs.c.queue, *order, runs.c.concurrency_key, runs.c.mutex, runs.c.limit_key)
        .where(
            is_state(RunState.QUEUED),
            runs.c.waits_for.is_(None),
            key_is_free,
        )
        .order_by(runs.c.priority.desc(), runs.c.available_at, runs.c.id)
        .with_for_update(skip_locked=True, of=runs)
    )


def _take(
    connection: Connection, store: Database, request: ClaimRequest, limits: Limits, chosen: Sequence[int]
) -> tuple[Claim, ...]:
    dialect, seconds = store.dialect, request.lease.total_seconds()
    given = {"ids": list(chosen), "by": request.worker, "lease_seconds": seconds}
    taken = connection.execute(dialect.composed.once(_take_these, dialect), given).all()
    if len(taken) < len(chosen):
        _expire(connection, store, runs.c.id.in_(chosen))
    if not taken:
        return ()
    limits.count_starts(taken)
    connection.execute(dialect.composed.once(_begin_attempts, dialect), {"ids": [row.id for row in taken]})
    outbox.add_started(connection, store, taken)
    place = {run_id: number for number, run_id in enumerate(chosen)}
    return tuple(claim_of(row) for row in sorted(taken, key=lambda row: place[row.id]))


def _take_these(dialect: Dialect) -> ReturningUpdate[Any]:
    """Return an UPDATE that returns what a claim needs to know of its run."""
    return (
        update(runs)
        .where(dialect.is_given(runs.c.id, "ids"), not_(_too_late(dialect)))
        .values(
            state=RunState.RUNNING.value,
            reason=None,
            attempt=runs.c.attempt + 1,
            fence=runs.c.fence + 1,
            worker=bindparam("by"),
            lease_until=dialect.now_plus(bindparam("lease_seconds", type_=Double())),
            started_at=func.coalesce(runs.c.started_at, dialect.now()),
        )
        .returning(*(runs.c[name] for name in CLAIM_COLUMNS))
    )


def _begin_attempts(dialect: Dialect) -> Insert:
    """Return the INSERT of the attempts' rows, from those of the runs that were just claimed: nothing is sent twice."""
    columns = {
        "run_id": runs.c.id,
        "fence": runs.c.fence,
        "number": runs.c.attempt,
        "worker": runs.c.worker,
        "started_at": dialect.now(),
    }
    these = select(*columns.values()).where(dialect.is_given(runs.c.id, "ids"))
    return insert(attempts).from_select(list(columns), these)


def _too_late(dialect: Dialect) -> ColumnElement[bool]:
    return and_(
        is_state(RunState.QUEUED),
        # Never NULL, so that its opposite is just that.
        func.coalesce(runs.c.start_deadline_at < dialect.now(), false()),
        runs.c.attempt == 0,
        runs.c.fence == 0,
    )


def _late_ids(store: Database) -> Select[int]:
    late = select(runs.c.id).where(_too_late(store.dialect)).order_by(runs.c.id)
    return late.limit(_LATE_AT_ONCE).with_for_update(skip_locked=True)


def _expire(connection: Connection, store: Database, which: ColumnElement[bool]) -> frozenset[int]:
    """Account for those of the runs whose start deadline has passed as `missed`, and return their ids."""
    missed = connection.execute(
        update(runs)
        .where(which, _too_late(store.dialect))
        .values(state=RunState.MISSED.value, reason=Reason.START_DEADLINE.value, finished_at=store.dialect.now())
        .returning(runs.c.id, runs.c.schedule_id)
    ).all()
    facts = {"state": RunState.MISSED.value, "reason": Reason.START_DEADLINE.value}
    told = [outbox.notice("run.missed", run_id=row.id, schedule_id=row.schedule_id, **facts) for row in missed]
    outbox.add_all(connection, store, told)
    return frozenset(row.id for row in missed)


def next_available_at(store: Database) -> timedelta | None:
    """Return how long until the next queued run may be claimed, or None when none waits.

    Zero when one may now, or waits for a limit, of whose end nothing tells another daemon.
    """
    with store.reading() as connection:
        store.dialect.follow_order(connection)
        row = connection.execute(store.dialect.composed.once(_what_waits, store.dialect)).one()
    if row.parked is not None:
        return timedelta(0)
    return None if row.at is None else max(row.at - row.now, timedelta(0))


def next_due_in(store: Database) -> timedelta | None:
    """Return how long until a run falls due that is not yet due, whatever else waits; None: there is none."""
    with store.reading() as connection:
        store.dialect.follow_order(connection)
        row = connection.execute(store.dialect.composed.once(_what_falls_due, store.dialect)).one_or_none()
    return None if row is None else max(row.at - row.now, timedelta(0))


def _what_falls_due(dialect: Dialect) -> Select[Any]:
    is_ahead = runs.c.available_at > select(dialect.now()).scalar_subquery()
    ready = and_(is_state(RunState.QUEUED), runs.c.waits_for.is_(None), is_ahead)
    at = runs.c.available_at
    return select(at.label("at"), dialect.now().label("now")).where(ready).order_by(at).limit(1)


def _what_waits(dialect: Dialect) -> Select[Any]:
    ready = and_(is_state(RunState.QUEUED), runs.c.waits_for.is_(None))
    earliest = select(runs.c.available_at).where(ready).order_by(runs.c.available_at).limit(1)
    return select(
        earliest.scalar_subquery().label("at"),
        first_parked().scalar_subquery().label("parked"),
        dialect.now().label("now"),
    )
