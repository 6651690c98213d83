"""From alerts that wait to messages that were sent, for one channel at a time.

    waiting ──next_message──► sending ──mark_sent──► sent
       ▲                         │ it surely was not sent: put together anew the next time
       └──────note_failure───────┤
                                 │ nobody knows (a timeout, kill -9): the same message again, under the same id
                                 └──drop──► dropped, with the reason

One daemon at a time holds a channel: a lease, and a fence without which nothing is written. So two daemons never send
one alert, and one that was frozen finds out before it sends: `still_holds` is asked at the last moment, and again and
again while the other side takes its time over the answer, which makes the lease new.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from batchd.db.engine import Database
from batchd.db.storable import storable_text
from batchd.domain.queue import Rate
from batchd.store import leased
from batchd.store.alert_schema import DROPPED, SENDING, SENT, WAITING, alert_channels, alerts

_LONGEST_ERROR = 1_000
_LEFT = (WAITING, SENDING)


@dataclass(frozen=True, slots=True)
class HeldChannel:
    """A channel that this daemon serves; `rest` is how long it must still be left alone after a failure."""

    name: str
    fence: int
    failures: int
    rest: timedelta
    reached: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WaitingAlert:
    """One row of `batchd_alerts` that belongs to a message."""

    id: int
    event: str
    incident_id: int | None
    payload: Mapping[str, Any]
    created_at: datetime
    tries: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message that is about to go; `is_again` says that it may have gone before."""

    id: str
    alerts: tuple[WaitingAlert, ...]
    is_again: bool


def register(store: Database, types: Mapping[str, str]) -> None:
    """Make the channels (name to type) known, or say that they still are in the config."""
    if not types:
        return
    with store.writing() as connection:
        now = store.dialect.now()
        for name, kind in sorted(types.items()):
            facts = {"type": kind, "seen_at": now}
            connection.execute(
                store.dialect.insert(alert_channels)
                .values(name=name, **facts)
                .on_conflict_do_update(index_elements=[alert_channels.c.name], set_=facts)
            )


def take(store: Database, name: str, worker: str) -> HeldChannel | None:
    """Take the channel, or keep it, for one lease; None while another daemon has it, or when it is not registered."""
    dialect = store.dialect
    with store.writing() as connection:
        row = leased.take(connection, dialect, alert_channels, name, worker, "failures", "retry_at", "reached")
        now = connection.execute(select(dialect.now())).scalar_one()
    if row is None:
        return None
    rest = timedelta(0) if row.retry_at is None else max(timedelta(0), row.retry_at - now)
    return HeldChannel(name, row.fence, row.failures, rest, tuple(row.reached or ()))


def still_holds(store: Database, held: HeldChannel) -> bool:
    """Return whether the channel is this daemon's, and make its lease new."""
    with store.writing() as connection:
        return _change(connection, held, lease_until=store.dialect.now_plus(leased.LEASE.total_seconds()))


def give_up(store: Database, held: HeldChannel) -> None:
    """Let another daemon have the channel at once."""
    with store.writing() as connection:
        _change(connection, held, worker=None, lease_until=None)


def due_channels(store: Database, names: Collection[str]) -> tuple[str, ...]:
    """Return those of the channels that have something to send now and no rest to keep, the longest waiting first."""
    now = store.dialect.now()
    statement = (
        select(alerts.c.channel)
        .join(alert_channels, alert_channels.c.name == alerts.c.channel)
        .where(
            alerts.c.state.in_(_LEFT),
            alerts.c.available_at <= now,
            or_(alert_channels.c.retry_at.is_(None), alert_channels.c.retry_at <= now),
        )
        .group_by(alerts.c.channel)
        .order_by(func.min(alerts.c.id))
    )
    with store.reading() as connection:
        return tuple(name for name in connection.execute(statement).scalars() if name in names)


def due_in(store: Database, channel: str) -> timedelta | None:
    """Return how long until the channel has something to send; None when nothing waits for it."""
    soonest = select(func.min(alerts.c.available_at, type_=alerts.c.available_at.type)).where(
        alerts.c.channel == channel, alerts.c.state.in_(_LEFT)
    )
    with store.reading() as connection:
        moment: datetime | None = connection.execute(soonest).scalar_one()
        if moment is None:
            return None
        now: datetime = connection.execute(select(store.dialect.now())).scalar_one()
        return max(timedelta(0), moment - now)


def sent_within(store: Database, channel: str, rate: Rate) -> bool:
    """Return whether the channel has sent as many messages within the rate's period as it may."""
    since = store.dialect.now_plus(-rate.period.total_seconds())
    sent = and_(alerts.c.channel == channel, alerts.c.state == SENT, alerts.c.done_at > since)
    with store.reading() as connection:
        count = connection.execute(select(func.count(alerts.c.message_id.distinct())).where(sent)).scalar_one()
    return int(count) >= rate.count


def next_message(store: Database, held: HeldChannel, message_id: str, most: int) -> Prepared | None:
    """Return what to send next; None when there is nothing, or another daemon has the channel by now.

    First a message that may have gone already, as it was; else up to `most` alerts that wait, together, as a new
    message of that id.
    """
    with store.writing() as connection:
        if not _change(connection, held, seen_at=store.dialect.now()):
            return None
        mine = alerts.c.channel == held.name
        again = connection.execute(
            select(alerts.c.message_id).where(mine, alerts.c.state == SENDING).order_by(alerts.c.id).limit(1)
        ).scalar_one_or_none()
        if again is not None:
            which = and_(mine, alerts.c.message_id == again, alerts.c.state == SENDING)
            return Prepared(again, _prepared(connection, which, again), is_again=True)
        waiting = select(alerts.c.id).where(mine, alerts.c.state == WAITING).order_by(alerts.c.id).limit(most)
        ids = connection.execute(waiting).scalars().all()
        if not ids:
            return None
        return Prepared(message_id, _prepared(connection, alerts.c.id.in_(ids), message_id), is_again=False)


def mark_sent(store: Database, held: HeldChannel, message_id: str) -> bool:
    """Write down that the message was sent, and that the channel works; False when another daemon has the channel."""
    with store.writing() as connection:
        well = {"failures": 0, "error": None, "failing_since": None, "retry_at": None, "reached": None}
        if not _change(connection, held, **well, sent_at=store.dialect.now()):
            return False
        connection.execute(
            update(alerts)
            .where(alerts.c.channel == held.name, alerts.c.message_id == message_id, alerts.c.state == SENDING)
            .values(state=SENT, done_at=store.dialect.now())
        )
    return True


def note_failure(
    store: Database,
    held: HeldChannel,
    message_id: str,
    error: str,
    rest: timedelta,
    *,
    may_have_gone: bool,
    reached: Collection[str] = (),
) -> None:
    """Write down that the channel failed and rests. What surely did not go is put together anew the next time."""
    now = store.dialect.now()
    with store.writing() as connection:
        is_held = _change(
            connection,
            held,
            failures=held.failures + 1,
            error=storable_text(error)[:_LONGEST_ERROR],
            failing_since=func.coalesce(alert_channels.c.failing_since, now),
            retry_at=store.dialect.now_plus(rest.total_seconds()),
            reached=sorted(reached) or None,
        )
        if is_held and not may_have_gone and not reached:
            connection.execute(
                update(alerts)
                .where(alerts.c.channel == held.name, alerts.c.message_id == message_id, alerts.c.state == SENDING)
                .values(state=WAITING, message_id=None)
            )


def drop(store: Database, held: HeldChannel, older_than: timedelta, why: str) -> int:
    """Give up what has waited for longer than that; return how many alerts."""
    old = alerts.c.created_at < store.dialect.now_plus(-older_than.total_seconds())
    which = and_(alerts.c.channel == held.name, alerts.c.state.in_(_LEFT), old)
    with store.reading() as connection:
        if connection.execute(select(alerts.c.id).where(which).limit(1)).first() is None:
            return 0
    with store.writing() as connection:
        if not _change(connection, held, seen_at=store.dialect.now()):
            return 0
        values = {"state": DROPPED, "done_at": store.dialect.now(), "error": why}
        return connection.execute(update(alerts).where(which).values(values)).rowcount


def drop_superseded(store: Database, held: HeldChannel, older_than: timedelta) -> int:
    """Leave out pings that are that old and not the last one: only the last says how things are; return how many."""
    with store.writing() as connection:
        if not _change(connection, held, seen_at=store.dialect.now()):
            return 0
        mine = and_(alerts.c.channel == held.name, alerts.c.state == WAITING)
        last = connection.execute(select(func.max(alerts.c.id)).where(mine)).scalar_one()
        old = alerts.c.created_at < store.dialect.now_plus(-older_than.total_seconds())
        return connection.execute(
            update(alerts)
            .where(mine, old, alerts.c.id < (last or 0))
            .values(state=DROPPED, done_at=store.dialect.now())
        ).rowcount


def _prepared(connection: Connection, which: ColumnElement[bool], message_id: str) -> tuple[WaitingAlert, ...]:
    names = ("id", "event", "incident_id", "payload", "created_at", "tries")
    rows = connection.execute(
        update(alerts)
        .where(which)
        .values(state=SENDING, message_id=message_id, tries=alerts.c.tries + 1)
        .returning(*(alerts.c[name] for name in names))
    ).mappings()
    return tuple(sorted((WaitingAlert(**row) for row in rows), key=lambda each: each.id))


def _change(connection: Connection, held: HeldChannel, **values: Any) -> bool:
    """Change the channel's row, which stays locked; False when another daemon has it, or nobody."""
    mine = leased.is_held(alert_channels, held.name, held.fence)
    return connection.execute(update(alert_channels).where(mine).values(values)).rowcount == 1
