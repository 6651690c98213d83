"""What every session of PostgreSQL is set to, also where a pooler hands its transactions to different sessions.

A pooler (PgBouncer and its like) tells its clients a backend's number of its own making; so a connection knows whether
it speaks to the server itself. If it does, its session is set up once. Behind a pooler in transaction mode a session is
whatever server is free: a setting would be lost for this client and found by another one, and a prepared statement
likewise. So there nothing is left behind: the settings are made anew in each transaction, for it alone, and psycopg
prepares nothing. Behind a pooler in session mode the same costs a round trip a transaction.

All locks, temporary tables and cursors of batchd end with their transaction. Only LISTEN needs a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy import event as sqlalchemy_event

from batchd.db.any_moment import read_any_moment
from batchd.db.dialect import DatabaseSettings

IS_POOLED = "batchd_is_pooled"
"""In a connection's `info`: whether somebody stands between it and the server."""

_THRESHOLD = "batchd_prepare_threshold"

_IN_ORDER = {
    "enable_sort": "off",
    "enable_bitmapscan": "off",
    "enable_seqscan": "off",
    "enable_tidscan": "on",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
"""All but index scans look expensive; so the plans stay right, whatever the tables grow to, and can be kept.

Until PostgreSQL 18 they look so by their costs, at which a server with LLVM would compile them, at each execution anew:
seconds for what takes half a millisecond.
"""

_ISOLATION = "read committed"
"""What the store's statements are written for: they skip or await each other's rows, and see what has become of them.

Under a role's or database's stricter default one in ten claims failed as soon as there were two daemons.
"""

_AT_ONCE, _USUAL = 0, 5
_MOST_MILLISECONDS = 2**31 - 1


def set_sessions(engine: Engine, settings: DatabaseSettings) -> None:
    """Have every connection follow the settings: UTC, how long statements and locks take, the store's isolation."""
    wanted = {
        "timezone": "UTC",
        "datestyle": "ISO",  # psycopg reads no other; the order of day and month in literals stays
        "intervalstyle": "postgres",
        "extra_float_digits": "1",  # the server's own default: a float that travels as text comes back as it was
        "statement_timeout": str(milliseconds(settings.statement_timeout)),
        "lock_timeout": str(milliseconds(settings.lock_timeout)),
    }
    if settings.is_store:
        wanted["client_encoding"] = "UTF8"
    isolation = {"transaction_isolation": _ISOLATION} if settings.is_store else {}
    lasting = {f"default_{name}": level for name, level in isolation.items()} | (_IN_ORDER if settings.in_order else {})
    # SET instead of start-up `options`, which PgBouncer refuses.
    for_session = _all_set(wanted | lasting, "false")
    for_transaction = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in (wanted | isolation).items())

    @sqlalchemy_event.listens_for(engine, "connect")
    def _prepare(dbapi_connection: Any, record: Any) -> None:
        told = int(dbapi_connection.info.backend_pid)
        with dbapi_connection.cursor() as cursor:
            cursor.execute(f"SELECT {for_session} WHERE pg_backend_pid() = {told}")
            is_pooled = cursor.fetchone() is None
        dbapi_connection.commit()
        record.info[IS_POOLED] = is_pooled
        record.info[_THRESHOLD] = None if is_pooled else _threshold(settings)
        dbapi_connection.prepare_threshold = record.info[_THRESHOLD]
        if settings.is_store:
            read_any_moment(dbapi_connection)

    @sqlalchemy_event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.info[IS_POOLED]:
            connection.exec_driver_sql(for_transaction)

    @sqlalchemy_event.listens_for(engine, "checkin")
    def _put_back(dbapi_connection: Any, record: Any) -> None:
        if dbapi_connection is not None:
            dbapi_connection.prepare_threshold = record.info.get(_THRESHOLD)


def follow_order(connection: Connection) -> None:
    """Have the transaction take its rows from the indexes, and the session keep the plans for the next one."""
    if not connection.info[IS_POOLED]:
        driver: Any = connection.connection.driver_connection
        driver.prepare_threshold = _AT_ONCE
    connection.exec_driver_sql(_FOLLOW_ORDER)


def fetch_by_itself(
    engine: Engine, statement: str, given: Mapping[str, Any], is_doubtful: Callable[[psycopg.Error], bool]
) -> Sequence[Any] | None:
    """Execute the statement as a transaction and return its row; None behind a pooler, where it is not executed.

    After an error that is doubtful the session is left: its statement may be gone, or its right to write.
    """
    pooled = engine.raw_connection()
    try:
        if pooled.info[IS_POOLED]:
            return None
        driver = pooled.driver_connection
        assert isinstance(driver, psycopg.Connection)
        return driver.execute(statement.encode(), given).fetchone()
    except psycopg.Error as error:
        if is_doubtful(error):
            pooled.invalidate(error)
        raise
    finally:
        pooled.close()


def is_pooled(connection: Connection) -> bool:
    """Return whether somebody stands between this connection and the server."""
    return bool(connection.info[IS_POOLED])


def _threshold(settings: DatabaseSettings) -> int | None:
    """Return how often psycopg sees a statement before it has the server prepare it; None: never."""
    if settings.in_order:
        return _AT_ONCE
    return None if settings.replans else _USUAL


def _all_set(wanted: Mapping[str, str], is_local: str) -> str:
    return ", ".join(f"set_config('{name}', '{value}', {is_local})" for name, value in wanted.items())


_FOLLOW_ORDER = f"SELECT {_all_set(_IN_ORDER, 'true')}"


def milliseconds(limit: timedelta | None) -> int:
    """Return the limit as PostgreSQL's settings have it: None is 0, and 24 days are the most that they can hold."""
    return 0 if limit is None else min(_MOST_MILLISECONDS, max(1, round(limit.total_seconds() * 1000)))
