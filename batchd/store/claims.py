"""Claiming runs: a lease, a fence token and an attempt row, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    String,
    and_,
    cast,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from batchd.db.engine import Database
from batchd.db.storable import storable_text
from batchd.domain.job import Backoff, JsonObject, JsonValue, RetryPolicy
from batchd.domain.run import Reason, RunState
from batchd.store import outbox
from batchd.store.schema import attempts, runs

_UNREADABLE = (ValueError, TypeError, ArithmeticError, LookupError)
"""What a row that somebody edited by hand can raise when it is read."""

_LATE_AT_ONCE = 1_000
_LONGEST_DELAY = timedelta(days=3650).total_seconds()


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

    @property
    def log_fields(self) -> dict[str, JsonValue]:
        """What every log line of the run carries, from whatever thread."""
        return {"run_id": self.run_id, "job": self.job or self.kind, "attempt": self.attempt}


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
    unique index decides and the loser tries again one by one. A row that cannot even be read (somebody edited it) is
    quarantined and holds up no other.
    """
    try:
        return _claim(store, request)
    except IntegrityError:
        single = ClaimRequest(request.worker, 1, request.lease, request.room)
        try:
            return _claim(store, single)
        except IntegrityError:
            return ()
    except _UNREADABLE:
        return _claim_one_by_one(store, request)


def _claim(store: Database, request: ClaimRequest, only: int | None = None) -> tuple[Claim, ...]:
    with store.writing() as connection:
        while chosen := _choose(connection, store, request, only):
            taken = _take(connection, store, request, chosen)
            if taken:
                return taken
            # All of them were too late, and are `missed` now: look at those behind them.
            _expire(connection, store, runs.c.id.in_(_late_ids(store)))
    return ()


def _claim_one_by_one(store: Database, request: ClaimRequest) -> tuple[Claim, ...]:
    with store.reading() as connection:
        chosen = _choose(connection, store, request)
    claimed: list[Claim] = []
    for run_id in chosen:
        try:
            claimed += _claim(store, request, only=run_id)
        except IntegrityError:
            continue  # another daemon was faster
        except _UNREADABLE as error:
            _quarantine(store, run_id, f"the row cannot be read: {error}")
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
            facts: JsonObject = {
                "state": RunState.QUARANTINED.value,
                "reason": Reason.NOT_UNDERSTOOD.value,
                "error": why,
            }
            outbox.add(connection, store, "run.quarantined", run_id, changed.schedule_id, facts)


def _choose(connection: Connection, store: Database, request: ClaimRequest, only: int | None = None) -> list[int]:
    """Return ids of claimable runs, locked, at most one for each concurrency key; `only` asks for that one.

    Queue by queue, each in the order of `batchd_runs_claim`: what waits in a queue that is full is not even looked at.
    """
    store.dialect.follow_order(connection)
    found: list[Any] = []
    for queue in _queues_with_runs(connection):
        most = min(request.limit, max(request.room.get(queue, request.limit), 0))
        if most:
            found.extend(_best_of(connection, store, queue, most, only))
    found.sort(key=lambda row: (-row.priority, row.available, row.id))
    return _within_limits(found, request.room)[: request.limit]


def _queues_with_runs(connection: Connection) -> list[str]:
    """Return the queues in which a run is queued, hopping from one to the next through the index."""
    queued = runs.c.state == RunState.QUEUED.value
    first = select(func.min(runs.c.queue).label("queue")).where(queued).cte("queues", recursive=True)
    following = select(func.min(runs.c.queue)).where(queued, runs.c.queue > first.c.queue).scalar_subquery()
    queues = first.union_all(select(following).where(first.c.queue.is_not(None)))
    return list(connection.execute(select(queues.c.queue).where(queues.c.queue.is_not(None))).scalars())


def _best_of(connection: Connection, store: Database, queue: str, limit: int, only: int | None) -> Sequence[Any]:
    busy = runs.alias("busy")
    key_is_free = or_(
        runs.c.concurrency_key.is_(None),
        ~select(literal(1))
        .where(busy.c.concurrency_key == runs.c.concurrency_key, busy.c.state == RunState.RUNNING.value)
        .exists(),
    )
    # As they stand, whatever somebody has made of the row: to read it must not fail here, or no run is ever claimed.
    order = (cast(runs.c.priority, Integer).label("priority"), cast(runs.c.available_at, String).label("available"))
    return connection.execute(
        select(runs.c.id, runs.c.queue, *order, runs.c.concurrency_key)
        .where(
            runs.c.state == RunState.QUEUED.value,
            runs.c.queue == queue,
            runs.c.available_at <= store.dialect.now(),
            key_is_free,
            *([runs.c.id == only] if only is not None else []),
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
    late = _expire(connection, store, runs.c.id.in_(chosen))
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
    outbox.add_started(connection, store, taken)
    ordered = sorted(taken, key=lambda row: (-row.priority, row.available_at, row.id))
    return tuple(_claim_of(row) for row in ordered)


def _too_late(store: Database) -> ColumnElement[bool]:
    return and_(
        runs.c.state == RunState.QUEUED.value,
        runs.c.start_deadline_at.is_not(None),
        runs.c.start_deadline_at < store.dialect.now(),
        runs.c.attempt == 0,
        runs.c.fence == 0,
    )


def _late_ids(store: Database) -> Select[int]:
    late = select(runs.c.id).where(_too_late(store)).order_by(runs.c.id)
    return late.limit(_LATE_AT_ONCE).with_for_update(skip_locked=True)


def _expire(connection: Connection, store: Database, which: ColumnElement[bool]) -> frozenset[int]:
    """Account for those of the runs whose start deadline has passed as `missed`, and return their ids."""
    missed = connection.execute(
        update(runs)
        .where(which, _too_late(store))
        .values(state=RunState.MISSED.value, reason=Reason.START_DEADLINE.value, finished_at=store.dialect.now())
        .returning(runs.c.id, runs.c.schedule_id)
    ).all()
    facts = {"state": RunState.MISSED.value, "reason": Reason.START_DEADLINE.value}
    notices = [outbox.notice("run.missed", run_id=row.id, schedule_id=row.schedule_id, **facts) for row in missed]
    outbox.add_all(connection, store, notices)
    return frozenset(row.id for row in missed)


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
    minute = timedelta(minutes=1)
    try:
        delay, longest = float(stored["delay_seconds"]), float(stored["max_delay_seconds"])  # type: ignore[arg-type]
        jitter = float(stored["jitter"])  # type: ignore[arg-type]
        backoff = Backoff(str(stored["backoff"]))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return RetryPolicy(max_attempts, Backoff.FIXED, minute, minute, 0.0)
    if not (0 <= delay <= _LONGEST_DELAY and 0 <= longest <= _LONGEST_DELAY and 0 <= jitter <= 1):
        return RetryPolicy(max_attempts, Backoff.FIXED, minute, minute, 0.0)
    return RetryPolicy(max_attempts, backoff, timedelta(seconds=delay), timedelta(seconds=longest), jitter)


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
