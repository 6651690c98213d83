"""Requests of the HTTP surface that may be sent twice: the second time the answer is that of the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from batchd.db.engine import Database
from batchd.errors import UsageError
from batchd.store.web_schema import audit, sessions, web_requests

_KEPT_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Key:
    """What a client calls a request (`Idempotency-Key`), whose it is, and what it asked for, as a hash."""

    actor: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Queued:
    """The run that a request has queued; `is_replay` says that an earlier request of this key did."""

    run_id: int
    is_replay: bool


class KeyReused(UsageError):
    """The key stands for another request already."""


def once(database: Database, key: Key | None, queue: Callable[[Connection], int]) -> Queued:
    """Queue a run and remember the key, in one transaction; for a key of the last day return its run instead.

    `queue` gets the transaction's connection and returns the run's id. Raises KeyReused when the key was used for
    something else. Two requests at once are one: the second waits for the first.
    """
    with database.writing() as connection:
        if key is None:
            return Queued(queue(connection), is_replay=False)
        known = _known(connection, database, key)
        if known is not None:
            return Queued(known, is_replay=True)
        run_id = queue(connection)
        mine = {"actor": key.actor, "key": key.key}
        connection.execute(
            update(web_requests)
            .where(*(web_requests.c[name] == value for name, value in mine.items()))
            .values(run_id=run_id)
        )
        return Queued(run_id, is_replay=False)


def prune(database: Database, *, keep_audit_seconds: float) -> int:
    """Remove keys of more than a day ago, sessions that are over, and old rows of the audit record."""
    now = database.dialect.now()
    with database.writing() as connection:
        removed = [
            connection.execute(statement).rowcount
            for statement in (
                delete(web_requests).where(web_requests.c.created_at < database.dialect.now_plus(-_KEPT_SECONDS)),
                delete(sessions).where(sessions.c.expires_at < now),
                delete(audit).where(audit.c.at < database.dialect.now_plus(-keep_audit_seconds)),
            )
        ]
    return sum(removed)


def _known(connection: Connection, database: Database, key: Key) -> int | None:
    """Return the run of the key, or claim the key: whoever claims it at the same time waits for our commit."""
    claimed = (
        database.dialect.insert(web_requests)
        .values(actor=key.actor, key=key.key, fingerprint=key.fingerprint, created_at=database.dialect.now())
        .on_conflict_do_nothing(index_elements=[web_requests.c.actor, web_requests.c.key])
        .returning(web_requests.c.key)
    )
    if connection.execute(claimed).first() is not None:
        return None
    row = connection.execute(
        select(web_requests.c.run_id, web_requests.c.fingerprint).where(
            web_requests.c.actor == key.actor, web_requests.c.key == key.key
        )
    ).one()
    if row.fingerprint != key.fingerprint:
        raise KeyReused(
            "this Idempotency-Key was used for another request", hint="a key stands for one request; make a new one"
        )
    return int(row.run_id)
