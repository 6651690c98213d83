"""What is wrong, what was, who was told: read models for people, the API and the dashboard.

    open_incidents(store)                          what is open now, the newest first
    list_incidents(store, IncidentFilter(...))     history, newest first, by keyset: `before_id` is the last one's id
    find_incident(store, 7)                        one of them, with everything that was told of it
    channel_views(store)                           how each channel does, and what waits for it
    acknowledge(store, 7, by="ann")                no more reminders of it
    close(store, 7, by="ann")                      as if it had recovered, by hand

Each function is one short transaction. `summary`, `details` and `error` may hold text that a job wrote: clean it before
you print it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, func, select, update

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.store.alert_schema import CLOSED, OPEN, SENDING, WAITING, alert_channels, alerts, incidents
from batchd.store.views import all_of, columns_of

BY_HAND = "by_hand"
_MOST_OPEN = 1_000
_MOST_TOLD = 200


@dataclass(frozen=True, slots=True)
class IncidentView:
    """One row of `batchd_incidents`; `closed_because` says what closed it: "recovered", "by_hand", ..."""

    id: int
    rule: str
    subject: str
    job: str | None
    run_id: int | None
    state: str
    summary: str
    details: JsonObject
    count: int
    opened_at: datetime
    last_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    closed_at: datetime | None
    closed_because: str | None

    @property
    def is_open(self) -> bool:
        """Whether it is still so."""
        return self.state == OPEN


@dataclass(frozen=True, slots=True)
class ToldView:
    """One row of `batchd_alerts`: what a channel was, or is to be, told of an incident."""

    id: int
    channel: str
    event: str
    state: str
    tries: int
    created_at: datetime
    available_at: datetime
    done_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class IncidentDetail:
    """An incident, and what was told of it, the oldest first."""

    incident: IncidentView
    told: tuple[ToldView, ...]


@dataclass(frozen=True, slots=True)
class IncidentFilter:
    """Which incidents to list: of one job or rule, open or closed ones only, older than one."""

    job: str | None = None
    rule: str | None = None
    state: str | None = None
    before_id: int | None = None
    limit: int = 20


@dataclass(frozen=True, slots=True)
class ChannelView:
    """One channel: how often it has failed since it last worked, and how many alerts wait for it.

    `is_served` says whether a daemon has it in its config; `dropped` counts what was given up within the last day.
    """

    name: str
    type: str
    failures: int
    error: str | None
    failing_since: datetime | None
    retry_at: datetime | None
    sent_at: datetime | None
    waiting: int
    oldest_waiting_at: datetime | None
    dropped: int
    seen_age_seconds: float

    @property
    def is_served(self) -> bool:
        """Whether a daemon has it in its config."""
        return self.seen_age_seconds < _SEEN_WITHIN_SECONDS


_SEEN_WITHIN_SECONDS = 120.0
_DAY_SECONDS = 86_400.0


def open_incidents(database: Database, *, job: str | None = None, limit: int = _MOST_OPEN) -> tuple[IncidentView, ...]:
    """Return what is open now, of all jobs or of one, the newest first."""
    return list_incidents(database, IncidentFilter(job=job, state=OPEN, limit=limit))


def list_incidents(database: Database, wanted: IncidentFilter) -> tuple[IncidentView, ...]:
    """Return the newest incidents that the filter lets through, newest first."""
    statement = select(*columns_of(IncidentView, incidents)).order_by(incidents.c.id.desc()).limit(wanted.limit)
    for column, value in ((incidents.c.job, wanted.job), (incidents.c.rule, wanted.rule)):
        if value is not None:
            statement = statement.where(column == value)
    if wanted.state is not None:
        statement = statement.where(incidents.c.state == wanted.state)
    if wanted.before_id is not None:
        statement = statement.where(incidents.c.id < wanted.before_id)
    with database.reading() as connection:
        return all_of(connection, statement, IncidentView)


def count_open(database: Database) -> int:
    """Return how many incidents are open."""
    with database.reading() as connection:
        return count_open_in(connection)


def count_open_in(connection: Connection) -> int:
    """Return how many incidents are open, in the caller's transaction."""
    statement = select(func.count()).select_from(incidents).where(incidents.c.state == OPEN)
    return int(connection.execute(statement).scalar_one())


def find_incident(database: Database, incident_id: int) -> IncidentDetail | None:
    """Return the incident with what was told of it, or None when there is none of that id."""
    one = select(*columns_of(IncidentView, incidents)).where(incidents.c.id == incident_id)
    told = select(*columns_of(ToldView, alerts)).where(alerts.c.incident_id == incident_id)
    with database.reading() as connection:
        found = all_of(connection, one, IncidentView)
        if not found:
            return None
        return IncidentDetail(found[0], all_of(connection, told.order_by(alerts.c.id).limit(_MOST_TOLD), ToldView))


def channel_views(database: Database) -> tuple[ChannelView, ...]:
    """Return every channel that a daemon has had in its config, by name."""
    is_left = alerts.c.state.in_([WAITING, SENDING])
    counted = select(
        alerts.c.channel,
        func.sum(case((is_left, 1), else_=0)).label("waiting"),
        func.min(case((is_left, alerts.c.created_at), else_=None), type_=alerts.c.created_at.type).label("oldest"),
        func.sum(case((is_left, 0), else_=1)).label("dropped"),
    ).group_by(alerts.c.channel)
    lately = alerts.c.done_at >= database.dialect.now_plus(-_DAY_SECONDS)
    names = [field.name for field in dataclasses.fields(ChannelView) if field.name in alert_channels.c]
    statement = select(*(alert_channels.c[name] for name in names), alert_channels.c.seen_at)
    with database.reading() as connection:
        now = connection.execute(select(database.dialect.now())).scalar_one()
        left = {row.channel: row for row in connection.execute(counted.where(is_left))}
        lost = {
            row.channel: row.dropped
            for row in connection.execute(
                counted.where(lately, alerts.c.state == "dropped", alerts.c.error.is_not(None))
            )
        }
        rows = connection.execute(statement.order_by(alert_channels.c.name)).mappings().all()
    return tuple(
        ChannelView(
            **{name: row[name] for name in names},
            waiting=int(left[row["name"]].waiting) if row["name"] in left else 0,
            oldest_waiting_at=left[row["name"]].oldest if row["name"] in left else None,
            dropped=int(lost.get(row["name"], 0)),
            seen_age_seconds=max(0.0, (now - row["seen_at"]).total_seconds()),
        )
        for row in rows
    )


def acknowledge(database: Database, incident_id: int, *, by: str) -> bool:
    """Say that somebody looks after it: no more reminders; return False when it is not open, or is so already."""
    return _change(
        database,
        incident_id,
        incidents.c.acknowledged_at.is_(None),
        acknowledged_at=database.dialect.now(),
        acknowledged_by=by,
    )


def close(database: Database, incident_id: int, *, by: str) -> bool:
    """Close it by hand, telling no channel; return False when it is not open."""
    now = database.dialect.now()
    return _change(
        database, incident_id, state=CLOSED, closed_at=now, closed_because=BY_HAND, last_at=now, acknowledged_by=by
    )


def _change(database: Database, incident_id: int, *conditions: Any, **values: Any) -> bool:
    with database.writing() as connection:
        changed = connection.execute(
            update(incidents)
            .where(incidents.c.id == incident_id, incidents.c.state == OPEN, *conditions)
            .values(values)
        )
    return changed.rowcount == 1
