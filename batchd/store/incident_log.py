"""Opening and closing incidents, and what is to be told of it: with the place in the outbox, in one transaction.

Whoever holds the place (a row of `batchd_listeners`, a lease with a fence) judges events in order. What follows from
them and the new place commit together, so that no crash judges an event twice or leaves one out, and a daemon that was
frozen while another took over writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Column, ColumnElement, Connection, RowMapping, Table, and_, delete, insert, or_, select, update

from batchd.db.engine import Database
from batchd.db.storable import storable_text
from batchd.domain.alert import AlertRule, Told, incident_key
from batchd.domain.job import JsonObject
from batchd.domain.run import RunState
from batchd.store.alert_schema import CLOSED, DROPPED, OPEN, SENT, WAITING, alert_channels, alerts, incidents
from batchd.store.leased import is_held
from batchd.store.listeners import Held
from batchd.store.schema import listeners, runs

RECOVERED = "recovered"

_LONGEST_SUMMARY = 2_000
_CHUNK = 1_000
_KEEP_PINGS = timedelta(days=1)
_KEEP_CHANNELS = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Opening:
    """Something is wrong. `unless_closed_within`: not again so soon after its incident closed."""

    rule: AlertRule
    subject: str
    summary: str
    to: tuple[str, ...]
    job: str | None = None
    run_id: int | None = None
    details: JsonObject = field(default_factory=dict)
    unless_closed_within: timedelta | None = None

    @property
    def key(self) -> str:
        """What at most one open incident has."""
        return incident_key(self.rule, self.subject)


@dataclass(frozen=True, slots=True)
class Closing:
    """It is well again, if it was not. `up_to_run`: only if no later run shows it; `of_run`: only if it is about that.

    `is_ended`: only if the run that shows it is over. Those who were told of the incident are told of its end when
    `is_told`.
    """

    rule: AlertRule
    subject: str
    because: str = RECOVERED
    summary: str = ""
    run_id: int | None = None
    up_to_run: int | None = None
    of_run: int | None = None
    is_ended: bool = False
    is_told: bool = True

    @property
    def key(self) -> str:
        """What at most one open incident has."""
        return incident_key(self.rule, self.subject)


@dataclass(frozen=True, slots=True)
class Ping:
    """Tell a channel at once of a run, whatever the incidents are."""

    channel: str
    event: Told
    run_id: int
    payload: JsonObject


Change: TypeAlias = Opening | Closing | Ping


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """What judging needs to know of an open incident."""

    id: int
    key: str
    rule: str
    subject: str
    job: str | None
    run_id: int | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """What came of changes: the incidents (id, key, summary) that were opened, and that were closed."""

    opened: tuple[tuple[int, str, str], ...] = ()
    closed: tuple[tuple[int, str, str], ...] = ()


def open_now(store: Database) -> dict[str, OpenIncident]:
    """Return the open incidents by their key."""
    names = ("id", "key", "rule", "subject", "job", "run_id", "details")
    with store.reading() as connection:
        rows = connection.execute(select(*(incidents.c[name] for name in names)).where(incidents.c.state == OPEN))
        return {row["key"]: OpenIncident(**row) for row in rows.mappings()}


def write(
    store: Database, held: Held, last_id: int, changes: Sequence[Change], group_wait: timedelta
) -> Written | None:
    """Write the changes in order and move the place to `last_id`; None when another daemon has the place by now.

    What an opening tells waits for `group_wait`, so that what goes wrong together is told together.
    """
    opened, closed = [], []
    with store.writing() as connection:
        if not _move(connection, held, last_id):
            return None
        for change in changes:
            match change:
                case Opening():
                    incident = _open(connection, store, change, group_wait)
                    opened += [] if incident is None else [(incident, change.key, change.summary)]
                case Closing():
                    closed += [
                        (one, change.key, change.summary) for one in _close(connection, store, change, group_wait)
                    ]
                case Ping():
                    row = {"run_id": change.run_id, **change.payload}
                    _tell(connection, store, [change.channel], change.event, None, row, timedelta(0))
    return Written(tuple(opened), tuple(closed))


def remind(store: Database, held: Held, every: timedelta) -> int:
    """Tell again of incidents that are open, that nobody has acknowledged and that were told so long ago."""
    due = and_(
        incidents.c.state == OPEN,
        incidents.c.acknowledged_at.is_(None),
        incidents.c.notified_at < store.dialect.now_plus(-every.total_seconds()),
    )
    with store.reading() as connection:
        if connection.execute(select(incidents.c.id).where(due).limit(1)).first() is None:
            return 0
    with store.writing() as connection:
        if not _move(connection, held, None):
            return 0
        told = (
            connection.execute(
                update(incidents).where(due).values(notified_at=store.dialect.now()).returning(incidents)
            )
            .mappings()
            .all()
        )
        for row in told:
            channels = _told_of(connection, row["id"])
            _tell(connection, store, channels, Told.REMINDER, row["id"], _facts(row), timedelta(0))
    return len(told)


def prune(store: Database, keep: timedelta) -> bool:
    """Remove a chunk of what was told and of incidents that were closed so long ago; return whether there may be more.

    Pings, of which each run has two, go after a day; channels after a week in no config.
    """
    limit = store.dialect.now_plus(-keep.total_seconds())
    is_done = alerts.c.state.in_([SENT, DROPPED])
    is_ping = and_(alerts.c.incident_id.is_(None), alerts.c.done_at < _ago(store, _KEEP_PINGS))
    doomed: list[tuple[Table, Column[Any], ColumnElement[bool]]] = [
        (alerts, alerts.c.id, and_(is_done, or_(alerts.c.done_at < limit, is_ping))),
        (incidents, incidents.c.id, and_(incidents.c.state == CLOSED, incidents.c.closed_at < limit)),
        (alert_channels, alert_channels.c.name, alert_channels.c.seen_at < _ago(store, _KEEP_CHANNELS)),
    ]
    most = 0
    with store.writing() as connection:
        for table, key, which in doomed:
            ids = connection.execute(select(key).where(which).limit(_CHUNK)).scalars().all()
            if ids:
                connection.execute(delete(table).where(key.in_(ids)))
            most = max(most, len(ids))
    return most == _CHUNK


def _ago(store: Database, age: timedelta) -> ColumnElement[datetime]:
    return store.dialect.now_plus(-age.total_seconds())


def _move(connection: Connection, held: Held, last_id: int | None) -> bool:
    """Move the place, which stays locked until the transaction ends; return False when it is not ours any more."""
    mine = is_held(listeners, held.name, held.fence)
    values = {"failures": 0, "error": None} | ({} if last_id is None else {"last_id": last_id})
    return connection.execute(update(listeners).where(mine).values(values)).rowcount == 1


def _open(connection: Connection, store: Database, opening: Opening, group_wait: timedelta) -> int | None:
    """Return the id of the incident when it is a new one."""
    now = store.dialect.now()
    seen = {"run_id": opening.run_id, "summary": storable_text(opening.summary)[:_LONGEST_SUMMARY]}
    again = connection.execute(
        update(incidents)
        .where(incidents.c.key == opening.key, incidents.c.state == OPEN)
        .values(**seen, count=incidents.c.count + 1, last_at=now)
    )
    if again.rowcount or _closed_lately(connection, store, opening):
        return None
    row = (
        connection.execute(
            insert(incidents)
            .values(
                **seen,
                key=opening.key,
                rule=opening.rule.value,
                subject=opening.subject,
                job=opening.job,
                state=OPEN,
                details=opening.details,
                opened_at=now,
                last_at=now,
                notified_at=now,
            )
            .returning(incidents)
        )
        .mappings()
        .one()
    )
    _tell(connection, store, opening.to, Told.OPENED, row["id"], _facts(row), group_wait)
    return int(row["id"])


def _closed_lately(connection: Connection, store: Database, opening: Opening) -> bool:
    if opening.unless_closed_within is None:
        return False
    since = store.dialect.now_plus(-opening.unless_closed_within.total_seconds())
    closed = and_(incidents.c.key == opening.key, incidents.c.closed_at >= since)
    return connection.execute(select(incidents.c.id).where(closed).limit(1)).first() is not None


def _close(connection: Connection, store: Database, closing: Closing, group_wait: timedelta) -> list[int]:
    """Return the ids of the incidents that this closed: none or one."""
    which = [incidents.c.key == closing.key, incidents.c.state == OPEN]
    if closing.up_to_run is not None:
        which.append(or_(incidents.c.run_id.is_(None), incidents.c.run_id <= closing.up_to_run))
    if closing.of_run is not None:
        which.append(incidents.c.run_id == closing.of_run)
    if closing.is_ended:
        is_running = and_(runs.c.id == incidents.c.run_id, runs.c.state == RunState.RUNNING.value)
        which.append(~select(runs.c.id).where(is_running).exists())
    now = store.dialect.now()
    rows = (
        connection.execute(
            update(incidents)
            .where(*which)
            .values(state=CLOSED, closed_at=now, closed_because=closing.because)
            .returning(incidents)
        )
        .mappings()
        .all()
    )
    for row in rows if closing.is_told else ():
        facts = _facts(row) | {"closing": closing.summary, "closing_run_id": closing.run_id}
        _tell(connection, store, _told_of(connection, row["id"]), Told.RECOVERED, row["id"], facts, group_wait)
    return [row["id"] for row in rows]


def _told_of(connection: Connection, incident_id: int) -> list[str]:
    statement = select(alerts.c.channel).where(alerts.c.incident_id == incident_id).distinct()
    return sorted(connection.execute(statement).scalars())


def _tell(
    connection: Connection,
    store: Database,
    channels: Sequence[str],
    event: Told,
    incident_id: int | None,
    payload: JsonObject,
    wait: timedelta,
) -> None:
    for channel in channels:
        connection.execute(
            insert(alerts).values(
                channel=channel,
                event=event.value,
                incident_id=incident_id,
                payload=payload,
                state=WAITING,
                available_at=store.dialect.now_plus(wait.total_seconds()),
                created_at=store.dialect.now(),
            )
        )


def _facts(row: RowMapping) -> JsonObject:
    """Return what an alert says of the incident, as it is now."""
    closed: datetime | None = row["closed_at"]
    return {
        "rule": row["rule"],
        "subject": row["subject"],
        "job": row["job"],
        "run_id": row["run_id"],
        "summary": row["summary"],
        "details": dict(row["details"]),
        "count": row["count"],
        "opened_at": row["opened_at"].isoformat(),
        "closed_at": closed and closed.isoformat(),
    }
