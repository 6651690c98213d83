"""Claiming runs: a lease, a fence token and an attempt row, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome
from batchd.domain.job import Backoff, JsonObject, RetryPolicy
from batchd.domain.run import Reason, RunState
from batchd.store import outbox
from batchd.store.schema import attempts, runs


@dataclass(frozen=True, slots=True)
class Claim:
    """One claimed run: everything that an attempt needs to know. `fence` goes with every later write."""

    run_id: int
    fence: int
    attempt: int
    max_attempts: int
    job: str | None
    kind: str
    queue: str
    params: JsonObject
    retry: RetryPolicy
    scheduled_for: datetime | None
    available_at: datetime
    timeout: timedelta | None


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a worker asks for: how many runs at most, how many more of each limited queue, for how long.

    `room` names the queues with a limit and how many more runs each of them may have; a queue that is not named has
    no limit.
    """

    worker: str
    limit: int
    lease: timedelta
    room: Mapping[str, int]


def claim(store: Database, request: ClaimRequest) -> tuple[Claim, ...]:
    """Claim up to `limit` runs, best priority first, then the longest waiting. One transaction.

    Two runs with the same concurrency key are never claimed together; where two daemons race for the same key, the
    unique index decides and the loser tries again one by one.
    """
    try:
        return _claim(store, request)
    except IntegrityError:
        single = ClaimRequest(request.worker, 1, request.lease, request.room)
        try:
            return _claim(store, single)
        except IntegrityError:
            return ()


def _claim(store: Database, request: ClaimRequest) -> tuple[Claim, ...]:
    with store.writing() as connection:
        chosen = _choose(connection, store, request)
        if not chosen:
            return ()
        return _take(connection, store, request, chosen)


def _choose(connection: Connection, store: Database, request: ClaimRequest) -> list[int]:
    """Return ids of claimable runs, locked, at most one for each concurrency key.

    Queue by queue, each in the order of `batchd_runs_claim`: what waits in a queue that is full is not even looked at.
    """
    store.dialect.follow_order(connection)
    found: list[Any] = []
    for queue in _queues_with_runs(connection):
        most = min(request.limit, max(request.room.get(queue, request.limit), 0))
        if most:
            found.extend(_best_of(connection, store, queue, most))
    found.sort(key=lambda row: (-row.priority, row.available_at, row.id))
    return _within_limits(found, request.room)[: request.limit]


def _queues_with_runs(connection: Connection) -> list[str]:
    """Return the queues in which a run is queued, hopping from one to the next through the index."""
    queued = runs.c.state == RunState.QUEUED.value
    first = select(func.min(runs.c.queue).label("queue")).where(queued).cte("queues", recursive=True)
    following = select(func.min(runs.c.queue)).where(queued, runs.c.queue > first.c.queue).scalar_subquery()
    queues = first.union_all(select(following).where(first.c.queue.is_not(None)))
    return list(connection.execute(select(queues.c.queue).where(queues.c.queue.is_not(None))).scalars())


def _best_of(connection: Connection, store: Database, queue: str, limit: int) -> Sequence[Any]:
    busy = runs.alias("busy")
    key_is_free = or_(
        runs.c.concurrency_key.is_(None),
        ~select(literal(1))
        .where(busy.c.concurrency_key == runs.c.concurrency_key, busy.c.state == RunState.RUNNING.value)
        .exists(),
    )
    return connection.execute(
        select(runs.c.id, runs.c.queue, runs.c.priority, runs.c.available_at, runs.c.concurrency_key)
        .where(
            runs.c.state == RunState.QUEUED.value,
            runs.c.queue == queue,
            runs.c.available_at <= store.dialect.now(),
            key_is_free,
        )
        .order_by(runs.c.priority.desc(), runs.c.available_at, runs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=runs)
    ).all()


def _within_limits(rows: Sequence[Any], room: Mapping[str, int]) -> list[int]:
    left = dict(room)
    keys: set[str] = set()
    chosen = []
    for row in rows:
        if row.concurrency_key in keys or left.get(row.queue, 1) <= 0:
            continue
        if row.concurrency_key is not None:
            keys.add(row.concurrency_key)
        if row.queue in left:
            left[row.queue] -= 1
        chosen.append(row.id)
    return chosen


def _take(connection: Connection, store: Database, request: ClaimRequest, chosen: Sequence[int]) -> tuple[Claim, ...]:
    now = store.dialect.now()
    too_late = and_(
        runs.c.start_deadline_at.is_not(None), runs.c.start_deadline_at < now, runs.c.attempt == 0, runs.c.fence == 0
    )
    missed = connection.execute(
        update(runs)
        .where(runs.c.id.in_(chosen), too_late)
        .values(state=RunState.MISSED.value, reason=Reason.START_DEADLINE.value, finished_at=now)
        .returning(runs.c.id, runs.c.schedule_id)
    ).all()
    outbox.add_all(
        connection,
        store,
        [
            outbox.notice("run.missed", run_id=row.id, schedule_id=row.schedule_id, reason=Reason.START_DEADLINE.value)
            for row in missed
        ],
    )
    late = {row.id for row in missed}
    taken = connection.execute(
        update(runs)
        .where(runs.c.id.in_([run_id for run_id in chosen if run_id not in late]))
        .values(
            state=RunState.RUNNING.value,
            reason=None,
            attempt=runs.c.attempt + 1,
            fence=runs.c.fence + 1,
            worker=request.worker,
            lease_until=store.dialect.now_plus(request.lease.total_seconds()),
            started_at=func.coalesce(runs.c.started_at, now),
        )
        .returning(
            runs.c.id,
            runs.c.fence,
            runs.c.attempt,
            runs.c.max_attempts,
            runs.c.schedule_id,
            runs.c.kind,
            runs.c.queue,
            runs.c.priority,
            runs.c.params,
            runs.c.retry,
            runs.c.scheduled_for,
            runs.c.available_at,
            runs.c.timeout_seconds,
        )
    ).all()
    if not taken:
        return ()
    connection.execute(
        attempts.insert().values(started_at=now),
        [{"run_id": row.id, "fence": row.fence, "number": row.attempt, "worker": request.worker} for row in taken],
    )
    ordered = sorted(taken, key=lambda row: (-row.priority, row.available_at, row.id))
    return tuple(_claim_of(row) for row in ordered)


def _claim_of(row: Row[Any]) -> Claim:
    return Claim(
        run_id=row.id,
        fence=row.fence,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        job=row.schedule_id,
        kind=row.kind,
        queue=row.queue,
        params=row.params,
        retry=_retry_policy(row.retry, row.max_attempts),
        scheduled_for=row.scheduled_for,
        available_at=row.available_at,
        timeout=None if row.timeout_seconds is None else timedelta(seconds=row.timeout_seconds),
    )


def _retry_policy(stored: JsonObject, max_attempts: int) -> RetryPolicy:
    """Return the policy of a row; one that somebody edited into nonsense means a plain minute between attempts."""
    try:
        return RetryPolicy(
            max_attempts=max_attempts,
            backoff=Backoff(str(stored["backoff"])),
            delay=timedelta(seconds=float(stored["delay_seconds"])),  # type: ignore[arg-type]
            max_delay=timedelta(seconds=float(stored["max_delay_seconds"])),  # type: ignore[arg-type]
            jitter=float(stored["jitter"]),  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValueError):
        minute = timedelta(minutes=1)
        return RetryPolicy(max_attempts, Backoff.FIXED, minute, minute, 0.0)


def next_available_at(store: Database) -> timedelta | None:
    """Return how long until the next queued run may be claimed (zero when one may now), or None when none waits."""
    with store.reading() as connection:
        store.dialect.follow_order(connection)
        row = connection.execute(
            select(func.min(runs.c.available_at).label("at"), store.dialect.now().label("now")).where(
                runs.c.state == RunState.QUEUED.value
            )
        ).one()
    return None if row.at is None else max(row.at - row.now, timedelta(0))


def release(store: Database, claims: Collection[Claim]) -> None:
    """Give claimed runs back as they were: available at once, no attempt used up. One transaction, fenced."""
    if not claims:
        return
    ordered = sorted(claims, key=lambda claimed: claimed.run_id)
    with store.writing() as connection:
        returned = [claimed for claimed in ordered if _release_one(connection, claimed)]
        if returned:
            connection.execute(
                update(attempts)
                .where(attempts.c.run_id == bindparam("run"), attempts.c.fence == bindparam("token"))
                .values(outcome=AttemptOutcome.RELEASED.value, finished_at=store.dialect.now()),
                [{"run": claimed.run_id, "token": claimed.fence} for claimed in returned],
            )
            notices = [
                outbox.notice("run.released", run_id=claimed.run_id, schedule_id=claimed.job) for claimed in returned
            ]
            outbox.add_all(connection, store, notices)


def _release_one(connection: Connection, claimed: Claim) -> bool:
    released = connection.execute(
        update(runs)
        .where(runs.c.id == claimed.run_id, runs.c.fence == claimed.fence, runs.c.state == RunState.RUNNING.value)
        .values(state=RunState.QUEUED.value, attempt=runs.c.attempt - 1, worker=None, lease_until=None)
    )
    return released.rowcount == 1
