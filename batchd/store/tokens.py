"""Tokens and sessions of the HTTP surface. Only digests are stored: who reads the tables can sign in as nobody."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Row, and_, delete, exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from batchd.db.engine import Database
from batchd.domain.access import Role, Token, new_token, token_id
from batchd.errors import UsageError
from batchd.store import audit
from batchd.store.audit import Actor
from batchd.store.web_schema import sessions, tokens

_SESSION_BYTES = 32
_SAID_USED_EVERY = timedelta(minutes=1)
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class TokenView:
    """One row of `batchd_tokens`, without what could be used."""

    id: str
    name: str
    role: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whose token or session it is."""

    token_id: str
    name: str
    role: Role


class TokenUnknown(UsageError):
    """There is no such token, or it is revoked already."""


def create(
    database: Database, name: str, role: Role, *, valid_for: timedelta | None = None, by: Actor | None = None
) -> Token:
    """Make a token and return it: its text is stored nowhere. Raises UsageError for a name that is taken."""
    token = new_token()
    now = database.dialect.now()
    row = {
        "id": token.id,
        "name": name,
        "role": role.value,
        "digest": _digest(token.text),
        "created_at": now,
        "expires_at": None if valid_for is None else database.dialect.now_plus(valid_for.total_seconds()),
    }
    try:
        with database.writing() as connection:
            connection.execute(insert(tokens).values(row))
            audit.add(connection, database, by, "token.create", detail={"token": name, "role": role.value})
    except IntegrityError as error:
        raise UsageError(
            f"there is a token {name!r} already", hint="choose another name; `batchd token list` shows them"
        ) from error
    return token


def listed(database: Database) -> tuple[TokenView, ...]:
    """Return every token, oldest first."""
    columns = [tokens.c[name] for name in TokenView.__slots__]
    with database.reading() as connection:
        rows = connection.execute(select(*columns).order_by(tokens.c.created_at, tokens.c.id)).mappings()
        return tuple(TokenView(**row) for row in rows)


def revoke(database: Database, name_or_id: str, *, by: Actor | None = None) -> str:
    """End a token, and every session that began with it, at once; return its name. Raises TokenUnknown."""
    found = or_(tokens.c.name == name_or_id, tokens.c.id == name_or_id)
    with database.writing() as connection:
        row = connection.execute(select(tokens.c.id, tokens.c.name).where(found, tokens.c.revoked_at.is_(None))).first()
        if row is None:
            raise TokenUnknown(
                f"there is no token {name_or_id!r} that could be revoked", hint="`batchd token list` shows them"
            )
        connection.execute(update(tokens).where(tokens.c.id == row.id).values(revoked_at=database.dialect.now()))
        connection.execute(delete(sessions).where(sessions.c.token_id == row.id))
        audit.add(connection, database, by, "token.revoke", detail={"token": row.name})
        return str(row.name)


def any_valid(database: Database) -> bool:
    """Return whether there is a token that works."""
    with database.reading() as connection:
        return bool(connection.execute(select(exists().where(_is_valid(database)))).scalar())


def bearer_of(database: Database, text: str) -> Bearer | None:
    """Return whose token this is, or None; takes as long for a wrong one as for a right one."""
    name = token_id(text)
    with database.reading() as connection:
        statement = select(tokens).where(tokens.c.id == (name or ""), _is_valid(database))
        row = connection.execute(statement).first()
    is_right = hmac.compare_digest(_digest(text).encode(), (row.digest if row else _NO_DIGEST).encode())
    return _bearer(row) if row is not None and is_right else None


def role_of(database: Database, token_id: str) -> Role | None:
    """Return what a token that still works allows; None for any other."""
    with database.reading() as connection:
        found = connection.execute(select(tokens.c.role).where(tokens.c.id == token_id, _is_valid(database)))
        role = found.scalar_one_or_none()
    return None if role is None else Role(role)


def begin_session(database: Database, bearer: Bearer, length: timedelta, by: Actor) -> str:
    """Sign a browser in and return what goes into its cookie."""
    secret = secrets.token_urlsafe(_SESSION_BYTES)
    with database.writing() as connection:
        connection.execute(
            insert(sessions).values(
                digest=_digest(secret),
                token_id=bearer.token_id,
                created_at=database.dialect.now(),
                expires_at=database.dialect.now_plus(length.total_seconds()),
            )
        )
        audit.add(connection, database, by, "session.begin")
    return secret


def bearer_of_session(database: Database, secret: str) -> Bearer | None:
    """Return who is signed in with this cookie, or None."""
    statement = (
        select(tokens)
        .join(sessions, sessions.c.token_id == tokens.c.id)
        .where(
            sessions.c.digest == _digest(secret), sessions.c.expires_at > database.dialect.now(), _is_valid(database)
        )
    )
    with database.reading() as connection:
        row = connection.execute(statement).first()
    return _bearer(row) if row is not None else None


def end_session(database: Database, secret: str, by: Actor) -> None:
    """Sign the browser out."""
    with database.writing() as connection:
        connection.execute(delete(sessions).where(sessions.c.digest == _digest(secret)))
        audit.add(connection, database, by, "session.end")


def note_used(database: Database, token_id: str) -> None:
    """Remember that the token is in use; at most once a minute is anything written."""
    long_ago = database.dialect.now_plus(-_SAID_USED_EVERY.total_seconds())
    stale = or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at < long_ago)
    with database.writing() as connection:
        connection.execute(
            update(tokens).where(tokens.c.id == token_id, stale).values(last_used_at=database.dialect.now())
        )


def _is_valid(database: Database) -> ColumnElement[bool]:
    return and_(
        tokens.c.revoked_at.is_(None), or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > database.dialect.now())
    )


def _bearer(row: Row[tuple[object, ...]]) -> Bearer:
    return Bearer(row.id, row.name, Role(row.role))


def _digest(text: str) -> str:
    """256 random bits need no slow hash: nobody can try them all."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
