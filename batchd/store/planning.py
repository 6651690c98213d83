"""From due schedules to runs: everything that one pass decides about a batch of schedules is one transaction.

The rows are locked with SKIP LOCKED, so two daemons share the work; `(schedule_id, scheduled_for)` is unique, so even
a clock that stepped back cannot make a second run of a fire. `next_run_at` is written here and by `reconcile` only, in
the same transaction as the runs, so whatever fails leaves the schedule due and the next pass plans it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, case, func, select, update
from sqlalchemy.exc import DataError, IntegrityError

from batchd.db.dialect import Copied, Dialect, Topic
from batchd.db.engine import Database, brief_message
from batchd.db.types import UtcTimestamp
from batchd.domain.catch_up import FirePlan, MissedRange, owed, plan_fires
from batchd.domain.job import CatchUp, CatchUpPolicy, JsonObject, Overlap
from batchd.domain.queue import resolved_key
from batchd.domain.run import UNFINISHED, CreatedBy, Reason, RunState
from batchd.domain.schedule import ScheduleError, fire_delay, parse_schedule
from batchd.store import outbox
from batchd.store.schema import runs, schedules
from batchd.store.states import is_state

BATCH = 1_000
"""The most schedules that one transaction plans."""

_QUEUE_DEPTH = 2
"""Under overlap `queue`: one run executes, one waits."""

_COPIED = Copied(
    ("kind", "queue", "priority", "params", "retry", "max_attempts", "mutex"),
    schedules,
    "schedule_id",
)
"""What a run has as its schedule has it, which the planner itself need not know."""

_READ = (
    "id",
    "schedule",
    "timezone",
    "next_run_at",
    "catch_up",
    "catch_up_max_runs",
    "catch_up_max_age_seconds",
    "overlap",
    "start_deadline_seconds",
    "jitter_seconds",
    "timeout_seconds",
    "limit_key",
)

_MOST_UNFINISHED = {Overlap.SKIP.value: 1, Overlap.QUEUE.value: _QUEUE_DEPTH, Overlap.ALLOW.value: None}
# For each run: to ask an enumeration for a value takes as long as all else that is said of it.
_QUEUED, _ALLOW, _BY_SCHEDULE = RunState.QUEUED.value, Overlap.ALLOW.value, CreatedBy.SCHEDULE.value

_UNPLANNABLE = (ValueError, ArithmeticError, AttributeError, TypeError, LookupError)
"""What a row that somebody edited by hand can raise; ScheduleError is a ValueError."""

UNREADABLE = (ValueError, TypeError, ArithmeticError, LookupError, DataError, IntegrityError)
"""What such rows can raise when a batch of them is read, or when the runs that they ask for are refused."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What became of a batch; `invalid` maps a schedule to why it cannot be planned."""

    schedules: int = 0
    queued: int = 0
    skipped: int = 0
    missed: int = 0
    invalid: dict[str, str] = field(default_factory=dict)
    dropped: tuple[tuple[str, str, int], ...] = field(default=(), compare=False)
    """`skipped` and `missed` by job: its name, the state, how many fire times."""

    def plus(self, other: Planned) -> Planned:
        """Return both together."""
        return Planned(
            self.schedules + other.schedules,
            self.queued + other.queued,
            self.skipped + other.skipped,
            self.missed + other.missed,
            self.invalid | other.invalid,
            self.dropped + other.dropped,
        )


@dataclass(frozen=True, slots=True)
class NextFire:
    """The next fire of all schedules."""

    job: str
    at: datetime


@dataclass(slots=True)
class _Batch:
    """What the transaction is going to write."""

    now: datetime
    store_now: datetime
    unfinished: dict[str, int]
    plans: dict[tuple[Any, ...], FirePlan] = field(default_factory=dict)
    """By what they depend on: what is due at the same moment mostly has the same schedule."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    moves: list[dict[str, Any]] = field(default_factory=list)
    invalid: dict[str, str] = field(default_factory=dict)


def due_schedule_ids(database: Database, now: datetime) -> tuple[str, ...]:
    """Return the schedules whose `next_run_at` has come, the longest due first."""
    statement = database.dialect.composed.once(_due)
    with database.reading() as connection:
        return tuple(connection.execute(statement, {"now": now}).scalars())


def next_fire(database: Database) -> NextFire | None:
    """Return which schedule is due next, and when; None when none ever will be."""
    statement = database.dialect.composed.once(_next)
    with database.reading() as connection:
        row = connection.execute(statement).one_or_none()
    return None if row is None else NextFire(row.id, row.next_run_at)


def add_due(database: Database, ids: Sequence[str], now: datetime) -> Planned:
    """Plan those of the schedules that are due, and that no other daemon is planning, in one transaction.

    `ids` are at most BATCH. A schedule that cannot be planned gets `error` and no `next_run_at`, and stops no other.
    """
    statement = database.dialect.composed.once(_these_if_due, database.dialect)
    with database.writing() as connection:
        rows = connection.execute(statement, {"ids": list(ids), "now": now}).all()
        batch = _new_batch(connection, database, rows, now)
        for row in rows:
            _plan(batch, row)
        return _write(connection, database, batch, len(rows))


def give_up_due(connection: Connection, database: Database, ids: Sequence[str], now: datetime) -> None:
    """Account for what these schedules owe as `missed`, before the same transaction gives them another time."""
    is_due = schedules.c.next_run_at <= now
    these = _read().where(database.dialect.is_given(schedules.c.id, "ids"), _plannable(), is_due).with_for_update()
    rows = connection.execute(these, {"ids": list(ids)}).all()
    batch = _new_batch(connection, database, rows, now)
    for row in rows:
        with contextlib.suppress(*_UNPLANNABLE):  # a row that could not be planned owes nothing
            missed = owed(parse_schedule(row.schedule, row.timezone), row.next_run_at, now)
            reason = Reason.SCHEDULE_CHANGED.value
            batch.runs.append(_missed_run(batch, row, missed) | {"reason": reason, "created_by": _BY_SCHEDULE})
    _write_dropped(connection, database, batch.runs)


def reboot_schedule_ids(database: Database) -> tuple[str, ...]:
    """Return the schedules that every start of a daemon fires."""
    is_reboot = func.lower(func.trim(schedules.c.schedule)) == "@reboot"
    statement = select(schedules.c.id).where(_plannable(), is_reboot, schedules.c.error.is_(None))
    with database.reading() as connection:
        return tuple(connection.execute(statement.order_by(schedules.c.id)).scalars())


def add_reboots(database: Database, ids: Sequence[str], began_at: datetime) -> Planned:
    """Queue one run of each of these `@reboot` schedules, in one transaction.

    `began_at` is when the daemon began: asked again for the same start, nothing is queued twice.
    """
    with database.writing() as connection:
        rows = connection.execute(_read().where(schedules.c.id.in_(ids))).all()
        batch = _new_batch(connection, database, rows, began_at)
        for row in rows:
            _add_fires(batch, row, FirePlan((began_at,), None, None))
        return _write(connection, database, batch, len(rows))


def mark_invalid(database: Database, schedule_id: str, error: Exception) -> str:
    """Take a schedule that cannot even be read, or whose runs cannot be written, out of planning; return why."""
    why = f"the row cannot be planned: {brief_message(error)}"
    with database.writing() as connection:
        _mark_invalid(connection, database, {schedule_id: why})
    return why


def _plannable() -> ColumnElement[bool]:
    return and_(schedules.c.paused_at.is_(None), schedules.c.removed_at.is_(None), schedules.c.enabled)


def _new_batch(connection: Connection, database: Database, rows: Sequence[Row[Any]], now: datetime) -> _Batch:
    dialect = database.dialect
    counted = connection.execute(dialect.composed.once(_unfinished_of, dialect), {"ids": [row.id for row in rows]})
    unfinished: dict[str, int] = {row[0]: row[1] for row in counted}
    store_now = connection.execute(dialect.composed.once(_store_now, dialect)).scalar_one()
    return _Batch(now, store_now, unfinished)


def _due() -> Select[Any]:
    return (
        select(schedules.c.id)
        .where(_plannable(), schedules.c.next_run_at <= bindparam("now", type_=UtcTimestamp()))
        .order_by(schedules.c.next_run_at)
    )


def _next() -> Select[Any]:
    coming = select(schedules.c.id, schedules.c.next_run_at).where(_plannable(), schedules.c.next_run_at.is_not(None))
    return coming.order_by(schedules.c.next_run_at).limit(1)


def _read() -> Select[Any]:
    """Return the SELECT of what planning asks of a schedule: its parameters only where they make a key."""
    params = case((schedules.c.limit_key.is_not(None), schedules.c.params)).label("params")
    return select(*[schedules.c[name] for name in _READ], params)


def _these_if_due(dialect: Dialect) -> Select[Any]:
    is_due = schedules.c.next_run_at <= bindparam("now", type_=UtcTimestamp())
    these = _read().where(dialect.is_given(schedules.c.id, "ids"), _plannable(), is_due)
    return these.with_for_update(skip_locked=True)


def _unfinished_of(dialect: Dialect) -> Select[Any]:
    is_unfinished = is_state(*sorted(UNFINISHED))
    return (
        select(runs.c.schedule_id, func.count())
        .where(dialect.is_given(runs.c.schedule_id, "ids"), is_unfinished)
        .group_by(runs.c.schedule_id)
    )


def _store_now(dialect: Dialect) -> Select[Any]:
    return select(dialect.now())


def _plan(batch: _Batch, row: Row[Any]) -> None:
    written = len(batch.runs)
    try:
        plan = _fire_plan(batch, row)
        _add_fires(batch, row, plan)
    except ScheduleError as error:
        batch.invalid[row.id] = str(error)
    except _UNPLANNABLE as error:
        del batch.runs[written:]
        batch.invalid[row.id] = f"{type(error).__name__}: {error}"
    else:
        batch.moves.append({"id": row.id, "next_run_at": plan.next_run_at})


def _fire_plan(batch: _Batch, row: Row[Any]) -> FirePlan:
    deadline = row.start_deadline_seconds
    asked = (
        row.schedule,
        row.timezone,
        row.next_run_at,
        row.catch_up,
        row.catch_up_max_runs,
        row.catch_up_max_age_seconds,
        deadline,
    )
    plan = batch.plans.get(asked)
    if plan is None:
        plan = batch.plans[asked] = plan_fires(
            parse_schedule(row.schedule, row.timezone),
            next_run_at=row.next_run_at,
            now=batch.now,
            policy=CatchUpPolicy(
                CatchUp(row.catch_up), row.catch_up_max_runs, timedelta(seconds=row.catch_up_max_age_seconds)
            ),
            start_deadline=None if deadline is None else timedelta(seconds=deadline),
        )
    return plan


def _add_fires(batch: _Batch, row: Row[Any], plan: FirePlan) -> None:
    if plan.missed is not None:
        batch.runs.append(_missed_run(batch, row, plan.missed))
    # Fires that are caught up together do not overlap each other: they wait for one another.
    together = len(plan.due) > 1
    if row.overlap not in _MOST_UNFINISHED:
        raise ValueError(f"{row.overlap!r} is no overlap")
    limit = _MOST_UNFINISHED[row.overlap]
    before = batch.unfinished.get(row.id, 0)
    created_by = CreatedBy.CATCH_UP.value if together or plan.missed is not None else _BY_SCHEDULE
    for fire in plan.due:
        if limit is not None and before >= limit:
            batch.runs.append(_skipped_run(batch, row, fire))
        else:
            batch.runs.append(_queued_run(batch, row, fire, created_by))


def _run(batch: _Batch, row: Row[Any], fire: datetime) -> dict[str, Any]:
    return {
        "schedule_id": row.id,
        "scheduled_for": fire,
        "available_at": batch.store_now,
        "timeout_seconds": row.timeout_seconds,
        "state": _QUEUED,
        "created_at": batch.store_now,
        "concurrency_key": None if row.overlap == _ALLOW else row.id,
        "limit_key": None if row.limit_key is None else resolved_key(row.limit_key, row.params),
        "created_by": _BY_SCHEDULE,
    }


def _queued_run(batch: _Batch, row: Row[Any], fire: datetime, created_by: str) -> dict[str, Any]:
    run = _run(batch, row, fire)
    delay = fire_delay(row.id, fire, timedelta(seconds=row.jitter_seconds))
    deadline = row.start_deadline_seconds
    run["available_at"] = batch.store_now + delay
    # Jitter is asked for, so it does not count as lateness.
    run["start_deadline_at"] = None if deadline is None else fire + delay + timedelta(seconds=deadline)
    run["created_by"] = created_by
    return run


def _skipped_run(batch: _Batch, row: Row[Any], fire: datetime) -> dict[str, Any]:
    return _run(batch, row, fire) | {
        "scheduled_until": None,
        "fire_count": 1,
        "state": RunState.SKIPPED.value,
        "reason": Reason.OVERLAP.value,
        "finished_at": batch.store_now,
    }


def _missed_run(batch: _Batch, row: Row[Any], missed: MissedRange) -> dict[str, Any]:
    return _run(batch, row, missed.first) | {
        "scheduled_until": missed.last,
        "fire_count": missed.count,
        "state": RunState.MISSED.value,
        "reason": Reason.CATCH_UP.value,
        "finished_at": batch.store_now,
        "created_by": CreatedBy.CATCH_UP.value,
    }


def _write(connection: Connection, database: Database, batch: _Batch, count: int) -> Planned:
    dropped = _write_dropped(connection, database, [run for run in batch.runs if "finished_at" in run])
    to_queue = [run for run in batch.runs if "finished_at" not in run]
    queued = len(database.dialect.insert_new(connection, runs, to_queue, runs.c.id, copied=_COPIED))
    database.dialect.update_each(connection, schedules, ["id"], batch.moves)
    _mark_invalid(connection, database, batch.invalid)
    states = [row.state for row in dropped]
    if queued:
        database.dialect.notify(connection, [Topic.RUNS])
    return Planned(
        schedules=count,
        queued=queued,
        skipped=states.count(RunState.SKIPPED.value),
        missed=sum(row.fire_count for row in dropped if row.state == RunState.MISSED.value),
        invalid=batch.invalid,
        dropped=tuple((row.schedule_id, row.state, row.fire_count) for row in dropped),
    )


def _write_dropped(connection: Connection, database: Database, dropped: list[dict[str, Any]]) -> Sequence[Row[Any]]:
    """Write the runs that policy ends before they begin, and tell of them; return those that were not there already."""
    told = (runs.c.id, runs.c.schedule_id, runs.c.state, runs.c.reason, runs.c.fire_count)
    written = database.dialect.insert_new(connection, runs, dropped, *told, copied=_COPIED)
    outbox.add_all(connection, database, [_notice(row) for row in written])
    return written


def _notice(row: Row[Any]) -> JsonObject:
    return outbox.notice(
        f"run.{row.state}",
        run_id=row.id,
        schedule_id=row.schedule_id,
        job=row.schedule_id,
        state=row.state,
        reason=row.reason,
        attempt=0,
        fire_count=row.fire_count,
    )


def _mark_invalid(connection: Connection, database: Database, invalid: dict[str, str]) -> None:
    if not invalid:
        return
    connection.execute(
        update(schedules)
        .where(schedules.c.id == bindparam("row_id"))
        .values(error=bindparam("why"), next_run_at=None, updated_at=database.dialect.now()),
        [{"row_id": name, "why": why} for name, why in invalid.items()],
    )
    notices = [
        outbox.notice("schedule.invalid", run_id=None, schedule_id=name, job=name, error=why)
        for name, why in invalid.items()
    ]
    outbox.add_all(connection, database, notices)
