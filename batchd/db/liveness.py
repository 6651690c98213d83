"""Whether a pooled connection to PostgreSQL still stands, asked when somebody takes it from the pool.

A server that ends, or ends one session, closes the socket, and there is something to read: the look at it costs no
round trip. Only a connection that has long been idle is asked itself, since something in between may have forgotten it
(firewalls and proxies do so after minutes). HikariCP likewise trusts what was used a moment ago.
"""

from __future__ import annotations

import select
from datetime import timedelta
from typing import Any

import psycopg
from sqlalchemy import Engine, ExceptionContext
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import InvalidatePoolError

from batchd.clock import SystemClock

_TRUSTED_SECONDS = 10.0
_NOW = timedelta(0)
_PUT_BACK_AT = "batchd_put_back_at"


def check_when_taken(engine: Engine) -> None:
    """Have the engine's pool hand out no connection that has ended; it connects anew instead."""
    clock = SystemClock()

    @sqlalchemy_event.listens_for(engine, "checkin")
    def _put_back(dbapi_connection: Any, record: Any) -> None:
        if dbapi_connection is not None:
            record.info[_PUT_BACK_AT] = clock.monotonic()

    @sqlalchemy_event.listens_for(engine, "checkout")
    def _taken(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        put_back_at = record.info.pop(_PUT_BACK_AT, None)
        if put_back_at is None:
            return  # it is new
        if clock.monotonic() - put_back_at < _TRUSTED_SECONDS and not has_said(dbapi_connection, within=_NOW):
            return
        if not _answers(engine, dbapi_connection):
            raise InvalidatePoolError


def leave_what_only_reads(engine: Engine) -> None:
    """Have the engine connect anew when a statement may not write.

    A session keeps the default that it began with, long after the database may be written again; and a URL with several
    servers finds the one that took over.
    """

    @sqlalchemy_event.listens_for(engine, "handle_error")
    def _failed(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
            context.is_disconnect = True


def has_said(driver: psycopg.Connection[Any], *, within: timedelta) -> bool:
    """Return whether the server says something that nobody asked for in that time: a notification, or that it ends."""
    if driver.closed:
        return True
    look = select.poll()
    look.register(driver.fileno(), select.POLLIN)
    return bool(look.poll(within.total_seconds() * 1000))


def _answers(engine: Engine, driver: psycopg.Connection[Any]) -> bool:
    try:
        return engine.dialect.do_ping(driver)  # type: ignore[arg-type] # a DBAPI connection by another name
    except psycopg.Error:
        return False
