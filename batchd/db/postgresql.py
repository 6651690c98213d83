"""PostgreSQL through psycopg 3."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import errors as pg
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Row,
    Table,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal,
    text,
    type_coerce,
)
from sqlalchemy import create_engine as sqlalchemy_engine
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP, Insert, insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from batchd.db.composed import Composed
from batchd.db.dialect import Copied, DatabaseSettings, Failure, Topic
from batchd.db.liveness import check_when_taken, has_said, leave_what_only_reads
from batchd.db.lock_number import lock_number
from batchd.db.postgresql_session import fetch_by_itself, follow_order, milliseconds, set_sessions
from batchd.db.postgresql_writes import new_rows, sent

_CHANNEL_PREFIX = "batchd_"

# The kernel ends a connection whose peer has vanished after about 30 s, instead of after hours.
_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

# Data exceptions, broken constraints, a view's CHECK OPTION, an index entry that is too large, a trigger's RAISE.
_ROW_STATES = ("22", "23", "44", "54000", "P0001")

_NOT_OF_THE_ROWS = frozenset({Failure.UNAVAILABLE, Failure.OTHER})

_KEY_LOCKS = 0x62746368
_MOST_KEY_LOCKS = 1_000
"""As in migration 0003; the server's lock table has room for some thousands."""
_WRITERS = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND relation = to_regclass(:name)
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_UNAVAILABLE_CLASSES = ("08", "53")
"""Broken connections; no room: a full disk, memory, too many connections."""

_UNAVAILABLE_STATES = frozenset(
    {
        "57P01",  # admin_shutdown, pg_terminate_backend
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now: it is starting
        "57P05",  # idle_session_timeout
        "25P03",  # idle_in_transaction_session_timeout
        "25P04",  # transaction_timeout
        "25006",  # read only: a standby, for now
    }
)


class PostgresDialect:
    """See `batchd.db.dialect.Dialect`."""

    name = "postgresql"
    changes_in_ctes = True

    def __init__(self) -> None:
        self.composed = Composed()

    def create_engine(self, settings: DatabaseSettings) -> Engine:
        """Return an engine on psycopg 3; a plain `postgresql://` URL means the same driver."""
        url = make_url(settings.url).set(drivername="postgresql+psycopg")
        connect_args: dict[str, Any] = dict(_KEEPALIVES)
        connect_args["connect_timeout"] = max(1, round(settings.connect_timeout.total_seconds()))
        connect_args["application_name"] = f"batchd {settings.name}"
        for key in url.query:
            connect_args.pop(key, None)  # what the URL says explicitly wins
        engine = sqlalchemy_engine(
            url,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_use_lifo=True,
            pool_timeout=settings.connect_timeout.total_seconds(),
            connect_args=connect_args,
            json_deserializer=_json_read,
            hide_parameters=True,
            # There is no transaction to roll back when such a connection is put back.
            **({"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None} if settings.in_order else {}),
        )
        set_sessions(engine, settings)
        check_when_taken(engine)
        if settings.is_store:
            leave_what_only_reads(engine)
        return engine

    @contextlib.contextmanager
    def writing(self, connection: Connection) -> Iterator[None]:  # noqa: ARG002
        """PostgreSQL needs nothing: rows are locked as they are written."""
        yield

    def failure(self, error: BaseException) -> Failure:
        """Return what the error means, by SQLSTATE; an error without one is a broken or refused connection."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return Failure.UNAVAILABLE
        if not isinstance(cause, psycopg.Error):
            return Failure.OTHER
        match cause:
            case pg.LockNotAvailable() | pg.DeadlockDetected() | pg.SerializationFailure():
                return Failure.LOCK_TIMEOUT
            case pg.QueryCanceled():
                return Failure.CANCELLED
            case pg.ForeignKeyViolation() | pg.RestrictViolation():
                return Failure.FOREIGN_KEY
            case pg.UniqueViolation():
                return Failure.UNIQUE
        state = cause.sqlstate
        if state is None:
            broken = isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
            return Failure.UNAVAILABLE if broken else Failure.OTHER
        if state.startswith(_UNAVAILABLE_CLASSES) or state in _UNAVAILABLE_STATES:
            return Failure.UNAVAILABLE
        return Failure.ROW if state.startswith(_ROW_STATES) else Failure.OTHER

    def cancel(self, dbapi_connection: Any, *, within: timedelta) -> None:
        """Ask the server to cancel; cut the socket if the request itself is not answered in time."""
        driver: psycopg.Connection[Any] = getattr(dbapi_connection, "driver_connection", dbapi_connection)
        try:
            driver.cancel_safe(timeout=within.total_seconds())
        except (psycopg.Error, OSError):
            cut_socket(driver)

    def insert(self, table: Table) -> Insert:
        """Return PostgreSQL's INSERT."""
        return insert(table)

    def insert_new(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        *returning: Column[Any],
        copied: Copied | None = None,
    ) -> Sequence[Row[Any]]:
        """Send the rows as one JSON document and insert them in one statement; copies stay on the server."""
        if not rows:
            return ()
        quoted = map(connection.dialect.identifier_preparer.quote, [column.name for column in returning])
        ending = f"ON CONFLICT DO NOTHING RETURNING {', '.join(quoted)}"
        statement, given = new_rows(connection, table, rows, ending, copied=copied)
        return connection.execute(text(statement).columns(*returning), given).all()

    def is_among(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        """Return `= ANY` of an array, whose text the driver need not read anew for each number of values."""
        return column == any_(literal(list(values), ARRAY(column.type)))

    def is_given(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Return `= ANY` of an array."""
        return column == any_(bindparam(name, type_=ARRAY(column.type)))

    def insert_all(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        *,
        stamped: Collection[str] = (),
    ) -> None:
        """Send the rows as one JSON document and insert them in one statement."""
        if rows:
            statement, given = new_rows(connection, table, rows, "", stamped)
            connection.execute(text(statement), given)

    def update_each(
        self,
        connection: Connection,
        table: Table,
        key: Collection[str],
        rows: Sequence[Mapping[str, Any]],
        *,
        where: Mapping[str, Any] = MappingProxyType({}),
        stamped: Collection[str] = (),
    ) -> int:
        """Send the values as one JSON document and update the rows in one statement."""
        if not rows:
            return 0
        preparer = connection.dialect.identifier_preparer
        name = preparer.format_table(table)
        given = sent(connection, table, rows, key)
        keys = [*map(preparer.quote, key)]
        changes = [f"{column} = {value}" for column, value in given.values.items() if column not in keys]
        changes += [f"{preparer.quote(column)} = clock_timestamp()" for column in stamped]
        these = [f"{name}.{column} = {given.values[column]}" for column in keys]
        these += [f"{name}.{preparer.quote(column)} = :is_{column}" for column in where]
        changed = f"UPDATE {name} SET {', '.join(changes)} {given.origin} WHERE {' AND '.join(these)}"  # noqa: S608 (our own names)
        parameters = {**given.parameters, **{f"is_{column}": value for column, value in where.items()}}
        return connection.execute(text(changed), parameters).rowcount

    def follow_order(self, connection: Connection) -> None:
        """Make all but index scans look expensive for the transaction, and keep its plans for the next one.

        To find one anew took longer than to execute it.
        """
        follow_order(connection)

    def fetch_by_itself(self, engine: Engine, statement: str, given: Mapping[str, Any]) -> Sequence[Any] | None:
        """Have psycopg execute it: SQLAlchemy would take as long again as the server."""
        return fetch_by_itself(engine, statement, given, lambda error: self.failure(error) in _NOT_OF_THE_ROWS)

    def now(self) -> ColumnElement[datetime]:
        """Return `clock_timestamp()`, which moves within a transaction as `now()` does not."""
        return func.clock_timestamp()

    def now_plus(self, seconds: float | ColumnElement[Any]) -> ColumnElement[datetime]:
        """Return `clock_timestamp()` plus an interval."""
        return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)

    def seconds_between(self, earlier: ColumnElement[Any], later: ColumnElement[Any]) -> ColumnElement[float]:
        """Return the interval's epoch."""
        moment = TIMESTAMP(timezone=True)
        return cast(func.extract("epoch", type_coerce(later, moment) - type_coerce(earlier, moment)), Double())

    def json_number(self, document: ColumnElement[Any], key: str) -> ColumnElement[float]:
        """Return it by `jsonb_typeof`, since a cast of anything else would fail the whole statement."""
        return case((func.jsonb_typeof(document[key]) == "number", document[key].as_float()))

    def json_list_has(self, document: ColumnElement[Any], member: str) -> ColumnElement[bool]:
        """Return `document ? member`."""
        found: ColumnElement[bool] = type_coerce(document, JSONB).has_key(member)
        return found

    @contextlib.contextmanager
    def read_only(self, connection: Connection) -> Iterator[None]:
        """SET TRANSACTION, which must come first; the end of the transaction undoes it."""
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield

    @contextlib.contextmanager
    def time_limit(self, connection: Connection, limit: timedelta) -> Iterator[None]:
        """Set `statement_timeout` for the transaction; the next block sets its own."""
        self.set_for_transaction(connection, statement_timeout=limit)
        yield

    @contextlib.contextmanager
    def without_transaction(self, connection: Connection) -> Iterator[None]:
        """Use the driver's autocommit; the pool turns it off again."""
        connection.execution_options(isolation_level="AUTOCOMMIT")
        yield

    def rows_changed(self, connection: Connection, rowcount: int) -> int | None:  # noqa: ARG002
        """Believe the driver; -1 stands for a statement that has no rows."""
        return rowcount if rowcount >= 0 else None

    def explain(self, statement: str) -> str:
        """Return EXPLAIN, which parses, plans and checks rights."""
        return f"EXPLAIN {statement}"

    def lock_for_transaction(self, connection: Connection, name: str) -> None:
        """Take `pg_advisory_xact_lock` on a key made from the name."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock_number(name)})

    def lock_unique_keys(self, connection: Connection, keys: Sequence[str]) -> None:
        """Take the locks that `batchd_enqueue_many` takes: one a key, or for very many keys a single one."""
        if not keys:
            return
        if len(keys) > _MOST_KEY_LOCKS:
            connection.execute(text("SELECT pg_advisory_xact_lock(:class, 0)"), {"class": _KEY_LOCKS})
            return
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:class, 0)"), {"class": _KEY_LOCKS})
        statement = text(
            "SELECT pg_advisory_xact_lock(CAST(:class AS integer), key) FROM ("
            "SELECT DISTINCT greatest(hashtext(name) & 2147483647, 1) AS key"
            " FROM unnest(CAST(:keys AS text[])) AS name ORDER BY key) AS keys"
        )
        connection.execute(statement, {"class": _KEY_LOCKS, "keys": list(keys)})

    def begin_chunk(self, connection: Connection) -> None:
        """Set every deferrable constraint to immediate and `synchronous_commit` to off for the transaction."""
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off; SET CONSTRAINTS ALL IMMEDIATE")

    def set_for_transaction(
        self,
        connection: Connection,
        *,
        lock_timeout: timedelta | None = None,
        statement_timeout: timedelta | None = None,
        waits_for_disk: bool = True,
    ) -> None:
        """Send what is set as one text of several statements."""
        limits = {"lock_timeout": lock_timeout, "statement_timeout": statement_timeout}
        settings = [f"SET LOCAL {name} = {milliseconds(limit)}" for name, limit in limits.items() if limit is not None]
        if not waits_for_disk:
            settings.append("SET LOCAL synchronous_commit = off")
        if settings:
            connection.exec_driver_sql("; ".join(settings))

    def tidy(self, engine: Engine, *, thoroughly: bool) -> None:
        """Do nothing: the checkpointer and autovacuum do it."""

    def writers(self, connection: Connection, table: Table) -> frozenset[str]:
        """Return who holds the lock that each INSERT, UPDATE and DELETE keeps on its table until its commit is seen."""
        rows = connection.execute(text(_WRITERS), {"name": table.name}).scalars()
        return frozenset(rows)

    def notify(self, connection: Connection, topics: Iterable[Topic]) -> None:
        """NOTIFY one channel a topic; PostgreSQL delivers on commit and folds repeats within a transaction."""
        for topic in topics:
            connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": _CHANNEL_PREFIX + topic.value})

    def wake_source(self, engine: Engine) -> PostgresWakeSource:
        """Return a LISTEN on a connection that the pool no longer counts."""
        return PostgresWakeSource(engine)


class PostgresWakeSource:
    """LISTEN on a connection of its own; NOTIFY arrives within milliseconds of the commit."""

    def __init__(self, engine: Engine) -> None:
        pooled = engine.raw_connection()
        driver = pooled.driver_connection
        assert isinstance(driver, psycopg.Connection)
        pooled.detach()
        self._driver = driver
        try:
            driver.autocommit = True
            for topic in Topic:
                driver.execute(f"LISTEN {_CHANNEL_PREFIX}{topic.value}".encode())
        except BaseException:
            self.close()  # the pool no longer does
            raise

    def wait(self, timeout: timedelta) -> frozenset[Topic]:
        """Return the topics that were notified; raises psycopg.Error when the connection is gone."""
        # psycopg itself would wake ten times a second, to see to Ctrl-C.
        notices = list(self._driver.notifies(timeout=0))
        if not notices and has_said(self._driver, within=timeout):
            notices = list(self._driver.notifies(timeout=0))
        return frozenset(Topic(notice.channel.removeprefix(_CHANNEL_PREFIX)) for notice in notices)

    def close(self) -> None:
        """Close the connection; never raises."""
        with contextlib.suppress(psycopg.Error, OSError):
            self._driver.close()


def cut_socket(driver: psycopg.Connection[Any]) -> None:
    """Shut the connection's socket down, so that a thread waiting on it wakes at once. Never raises."""
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(driver.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def _json_read(document: bytes | str) -> Any:
    """Return what `json.loads` does, without its look at how the document is encoded: the server sends UTF-8."""
    return {} if document == b"{}" else _decoded(document if isinstance(document, str) else document.decode())


_decoded = json.JSONDecoder().decode
