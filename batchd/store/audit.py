"""Who did what: rows that commit with what was done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.store.web_schema import audit


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for a change: a token's name, how it was said (`token`, `session`, `cron_secret`), from where."""

    name: str
    via: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class AuditView:
    """One row of `batchd_audit`."""

    id: int
    at: datetime
    actor: str
    via: str
    address: str | None
    action: str
    job: str | None
    run_id: int | None
    queue: str | None
    detail: JsonObject | None


def add(
    connection: Connection,
    database: Database,
    actor: Actor | None,
    action: str,
    **about: Any,
) -> None:
    """Write one row in the caller's transaction, unless nobody in particular asked.

    `about`: job, run_id, queue, detail; `detail` must hold no secret.
    """
    if actor is None:
        return
    said = {"actor": actor.name, "via": actor.via, "address": actor.address, "action": action, **about}
    connection.execute(insert(audit).values(at=database.dialect.now(), **said))


def note(database: Database, actor: Actor, action: str, **about: Any) -> None:
    """Write one row in a transaction of its own: for what is no change of the store itself (a sign-in)."""
    with database.writing() as connection:
        add(connection, database, actor, action, **about)


def entries(
    database: Database, *, before_id: int | None = None, job: str | None = None, limit: int = 50
) -> tuple[AuditView, ...]:
    """Return the newest rows, newest first: of one job, older than one row."""
    statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(audit.c.id < before_id)
    if job is not None:
        statement = statement.where(audit.c.job == job)
    with database.reading() as connection:
        return tuple(AuditView(**row) for row in connection.execute(statement).mappings())
