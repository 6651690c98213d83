"""What every session of PostgreSQL is set to, also where a pooler hands its transactions to different sessions.

A pooler (PgBouncer and its like) tells its clients a backend's number of its own making; so a connection knows whether
it speaks to the server itself. If it does, its session is set up once. Behind a pooler in transaction mode a session is
whatever server is free: a setting would be lost for this client and found by another one, and a prepared statement
likewise. So there nothing is left behind: the settings are made anew in each transaction, for it alone, and psycopg
prepares nothing. Behind a pooler in session mode the same costs a round trip a transaction.

All locks, temporary tables and cursors of batchd end with their transaction. Only LISTEN needs a session.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy import event as sqlalchemy_event

from batchd.db.any_moment import read_any_moment
from batchd.db.dialect import DatabaseSettings

_IS_POOLED = "batchd_is_pooled"


def set_sessions(engine: Engine, settings: DatabaseSettings) -> None:
    """Have every connection of the engine follow the settings: UTC, and the longest that statements and locks take."""
    wanted = {
        "timezone": "UTC",
        "statement_timeout": str(_milliseconds(settings.statement_timeout)),
        "lock_timeout": str(_milliseconds(settings.lock_timeout)),
    }
    # SET instead of start-up `options`, which PgBouncer refuses.
    for_session = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in wanted.items())
    for_transaction = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in wanted.items())

    @sqlalchemy_event.listens_for(engine, "connect")
    def _prepare(dbapi_connection: Any, record: Any) -> None:
        told = int(dbapi_connection.info.backend_pid)
        with dbapi_connection.cursor() as cursor:
            cursor.execute(f"SELECT {for_session} WHERE pg_backend_pid() = {told}")
            is_pooled = cursor.fetchone() is None
        dbapi_connection.commit()
        record.info[_IS_POOLED] = is_pooled
        if is_pooled:
            dbapi_connection.prepare_threshold = None
        if settings.is_store:
            read_any_moment(dbapi_connection)

    @sqlalchemy_event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.info[_IS_POOLED]:
            connection.exec_driver_sql(for_transaction)


def is_pooled(connection: Connection) -> bool:
    """Return whether somebody stands between this connection and the server."""
    return bool(connection.info[_IS_POOLED])


def _milliseconds(limit: timedelta | None) -> int:
    return 0 if limit is None else max(1, round(limit.total_seconds() * 1000))
