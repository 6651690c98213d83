"""What goes wrong in a store, counted: for `batchd doctor`. Each query goes through an index or over a small table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, func, inspect, select

from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store import meta
from batchd.store.all_tables import all_tables
from batchd.store.incidents import count_open_in
from batchd.store.schema import SCHEMA_VERSION, attempts, listeners, outbox, queues, runs, schedules

_UNREAD_KEPT = 86_400.0
_EXPIRED_GRACE = 60.0


@dataclass(frozen=True, slots=True)
class StoreAilments:
    """Counts of what should not be.

    `missing`: tables, columns and indexes that the schema has and the store has not. `stuck`: runs whose lease ended
    over a minute ago. `overdue`: attempts that run longer than their timeout. `unread`: notices that a listener has not
    had for a day.
    """

    version: int | None
    wanted_version: int
    missing: tuple[str, ...]
    stuck: tuple[int, ...]
    overdue: tuple[int, ...]
    backlog: int
    waits_since: datetime | None
    failed: int
    quarantined: int
    broken_schedules: tuple[str, ...]
    unread: dict[str, int]
    open_incidents: int
    now: datetime


def missing_parts(database: Database) -> tuple[str, ...]:
    """Return what the store lacks of the schema that this batchd knows: tables, columns, indexes."""
    lacking = []
    with database.reading() as connection:
        inspector = inspect(connection)
        for table in all_tables().sorted_tables:
            if not inspector.has_table(table.name):
                lacking.append(f"table {table.name}")
                continue
            columns = {column["name"] for column in inspector.get_columns(table.name)}
            lacking += [f"column {table.name}.{column.name}" for column in table.columns if column.name not in columns]
            indexes = {index["name"] for index in inspector.get_indexes(table.name)}
            lacking += [f"index {index.name}" for index in table.indexes if index.name not in indexes]
            unique = {constraint["name"] for constraint in inspector.get_unique_constraints(table.name)}
            if table is runs and "batchd_runs_fire_key" not in unique | indexes:
                lacking.append("constraint batchd_runs_fire_key")
    return tuple(sorted(str(part) for part in lacking))


def store_ailments(database: Database) -> StoreAilments:
    """Return what is wrong in the store now; for one whose tables are all there."""
    missing = missing_parts(database)
    with database.reading() as connection:
        now = connection.execute(select(database.dialect.now())).scalar_one()
        version = meta.value_of(connection, "schema_version")
        ready = and_(
            runs.c.state == RunState.QUEUED.value,
            runs.c.waits_for.is_(None),
            runs.c.available_at <= now,
            runs.c.queue.not_in(select(queues.c.name).where(queues.c.paused_at.is_not(None))),
        )
        waiting = connection.execute(select(func.count(), func.min(runs.c.available_at)).where(ready)).one()
        day_ago = runs.c.finished_at >= now - timedelta(days=1)
        ended = select(runs.c.state, func.count()).where(day_ago).group_by(runs.c.state)
        states = {row[0]: row[1] for row in connection.execute(ended)}
        broken = select(schedules.c.id).where(schedules.c.error.is_not(None), schedules.c.removed_at.is_(None))
        return StoreAilments(
            version=None if version is None else int(version),
            wanted_version=SCHEMA_VERSION,
            missing=missing,
            stuck=_stuck(connection, now),
            overdue=_overdue(connection, now),
            backlog=waiting[0],
            waits_since=waiting[1],
            failed=states.get(RunState.FAILED.value, 0),
            quarantined=states.get(RunState.QUARANTINED.value, 0),
            broken_schedules=tuple(connection.execute(broken.order_by(schedules.c.id)).scalars()),
            unread=_unread(connection, now),
            open_incidents=count_open_in(connection),
            now=now,
        )


def _stuck(connection: Connection, now: datetime) -> tuple[int, ...]:
    ended = runs.c.lease_until < now - timedelta(seconds=_EXPIRED_GRACE)
    statement = select(runs.c.id).where(runs.c.state == RunState.RUNNING.value, ended).order_by(runs.c.id).limit(20)
    return tuple(connection.execute(statement).scalars())


def _overdue(connection: Connection, now: datetime) -> tuple[int, ...]:
    statement = (
        select(runs.c.id, runs.c.timeout_seconds, attempts.c.started_at)
        .join(attempts, and_(attempts.c.run_id == runs.c.id, attempts.c.fence == runs.c.fence))
        .where(runs.c.state == RunState.RUNNING.value, runs.c.timeout_seconds.is_not(None))
        .order_by(runs.c.id)
        .limit(1000)
    )
    late = timedelta(seconds=_EXPIRED_GRACE)
    return tuple(
        row.id
        for row in connection.execute(statement)
        if now - row.started_at > timedelta(seconds=row.timeout_seconds) + late
    )


def _unread(connection: Connection, now: datetime) -> dict[str, int]:
    """Return for each listener how many notices have waited for it for more than a day."""
    old = now - timedelta(seconds=_UNREAD_KEPT)
    found = {}
    for row in connection.execute(select(listeners.c.name, listeners.c.last_id)):
        unread = select(func.count()).where(outbox.c.id > row.last_id, outbox.c.created_at < old)
        count = connection.execute(unread).scalar_one()
        if count:
            found[row.name] = count
    return found
