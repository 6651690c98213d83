"""How far each listener has come, kept so that no crash loses an event; one daemon at a time serves a listener.

As a run is claimed, so is a listener: a lease that is renewed, and a fence that grows whenever another daemon takes it
over, so that a daemon that was frozen cannot move the place in the stream back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, update

from batchd.db.engine import Database
from batchd.db.storable import storable_text
from batchd.store import leased
from batchd.store.outbox import newest_id
from batchd.store.schema import listeners, outbox

ALERTS = "batchd.alerts"
"""How far the judging of alerts has come is kept as a listener's place is; it is no listener that people know."""

_LONGEST_ERROR = 2_000
_BEHIND_NOTHING = 2**62

LIVE_EVENTS = "http events"
"""The name of the row that stands for everybody who follows events over HTTP."""
_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class Registration:
    """A listener as its row knows it: `events` are names for people to read."""

    name: str
    events: str
    wants_started: bool
    wants_progressed: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A listener that this daemon serves: how far it is, and how often the next event has failed."""

    name: str
    fence: int
    last_id: int
    failures: int


@dataclass(frozen=True, slots=True)
class ListenerView:
    """One row of `batchd_listeners`. `behind` is how many rows of the outbox are still to be looked at."""

    name: str
    events: str
    last_id: int
    behind: int
    worker: str | None
    failures: int
    error: str | None
    lost: int
    seen_age_seconds: float

    @property
    def is_served(self) -> bool:
        """Whether a daemon has it."""
        return self.seen_age_seconds < 2 * leased.LEASE.total_seconds()


def register(store: Database, wanted: Sequence[Registration]) -> None:
    """Make the listeners known, in one transaction. A new one begins with what happens from now on."""
    if not wanted:
        return
    with store.writing() as connection:
        now, newest = store.dialect.now(), newest_id(connection)
        for each in sorted(wanted, key=lambda one: one.name):
            facts = {
                "events": each.events,
                "wants_started": each.wants_started,
                "wants_progressed": each.wants_progressed,
                "seen_at": now,
            }
            connection.execute(
                store.dialect.insert(listeners)
                .values(name=each.name, last_id=newest, created_at=now, **facts)
                .on_conflict_do_update(index_elements=[listeners.c.name], set_=facts)
            )


def wish_for_starts(store: Database) -> None:
    """Have `run.started` told to the readers of live events, who remember their places themselves; renews the wish.

    Its row holds nothing back from retention, and is forgotten like any other when nobody renews it.
    """
    with store.writing() as connection:
        now = store.dialect.now()
        connection.execute(
            store.dialect.insert(listeners)
            .values(
                name=LIVE_EVENTS,
                last_id=_BEHIND_NOTHING,
                created_at=now,
                events="started",
                wants_started=True,
                wants_progressed=False,
                seen_at=now,
            )
            .on_conflict_do_update(index_elements=[listeners.c.name], set_={"seen_at": now})
        )


def take(store: Database, name: str, worker: str) -> Held | None:
    """Take the listener, or keep it, for one lease; return None while another daemon has it.

    Raises LookupError when it is not registered (any more).
    """
    with store.writing() as connection:
        row = leased.take(connection, store.dialect, listeners, name, worker, "last_id", "failures")
        if row is None and not connection.execute(select(listeners.c.name).where(listeners.c.name == name)).first():
            raise LookupError(name)
    return None if row is None else Held(name, row.fence, row.last_id, row.failures)


def advance(store: Database, held: Held, last_id: int) -> bool:
    """Say that everything up to `last_id` is delivered; return False when another daemon has the listener by now."""
    return _change(store, held, last_id=last_id, failures=0, error=None)


def note_failure(store: Database, held: Held, last_id: int, failures: int, error: str) -> bool:
    """Say that the event behind `last_id` has failed so often; return False when another daemon has the listener."""
    said = storable_text(error)[:_LONGEST_ERROR]
    return _change(store, held, last_id=last_id, failures=failures, error=said)


def give_up(store: Database, held: Held) -> None:
    """Let another daemon have the listener at once."""
    _change(store, held, worker=None, lease_until=None)


def views(connection: Connection, store: Database) -> tuple[ListenerView, ...]:
    """Return every listener of a team's own, by name."""
    now = connection.execute(select(store.dialect.now())).scalar_one()
    newest = newest_id(connection)
    own = select(listeners).where(listeners.c.name.not_in([ALERTS, LIVE_EVENTS]))
    rows = connection.execute(own.order_by(listeners.c.name)).all()
    return tuple(
        ListenerView(
            name=row.name,
            events=row.events,
            last_id=row.last_id,
            behind=max(0, newest - row.last_id),
            worker=row.worker,
            failures=row.failures,
            error=row.error,
            lost=row.lost,
            seen_age_seconds=max(0.0, (now - row.seen_at).total_seconds()),
        )
        for row in rows
    )


def prune_outbox(
    connection: Connection, store: Database, keep: timedelta, keep_unread: timedelta
) -> tuple[int, dict[str, int]]:
    """Remove a chunk of the outbox's oldest rows; return how many, and how many of them each listener had not had.

    Rows go when they are older than `keep` and every listener has had them, or older than `keep_unread`. A listener
    that no daemon has had for so long is forgotten.
    """
    dialect = store.dialect
    unread_limit = dialect.now_plus(-keep_unread.total_seconds())
    connection.execute(delete(listeners).where(listeners.c.seen_at < unread_limit))
    had_by_all = connection.execute(select(func.min(listeners.c.last_id))).scalar_one()
    too_old = outbox.c.created_at < dialect.now_plus(-keep.total_seconds())
    if had_by_all is not None:
        too_old &= or_(outbox.c.id <= had_by_all, outbox.c.created_at < unread_limit)
    doomed = select(outbox.c.id).where(too_old).order_by(outbox.c.created_at).limit(_CHUNK)
    ids = connection.execute(doomed).scalars().all()
    if not ids:
        return 0, {}
    connection.execute(delete(outbox).where(outbox.c.id.in_(ids)))
    return len(ids), _count_lost(connection, ids)


def _count_lost(connection: Connection, ids: Collection[int]) -> dict[str, int]:
    lost: dict[str, int] = {}
    rows = connection.execute(select(listeners.c.name, listeners.c.last_id).order_by(listeners.c.name)).all()
    for name, last_id in rows:
        count = sum(1 for each in ids if each > last_id)
        if count:
            lost[name] = count
            statement = update(listeners).where(listeners.c.name == name)
            connection.execute(statement.values(lost=listeners.c.lost + count))
    return lost


def _change(store: Database, held: Held, **values: Any) -> bool:
    with store.writing() as connection:
        mine = leased.is_held(listeners, held.name, held.fence)
        changed = connection.execute(update(listeners).where(mine).values(**values))
    return changed.rowcount == 1
