"""SQLite through the standard library's driver.

One process writes to one file at a time: a lock in this process queues its own writers fairly (SQLite's busy handler
does not), and BEGIN IMMEDIATE settles the rest, so that a write never fails half-way with "database is locked".
WAL lets readers look while somebody writes; synchronous=FULL makes a commit durable, which WAL alone does not.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Row,
    String,
    Table,
    bindparam,
    case,
    cast,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy import create_engine as sqlalchemy_engine
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from batchd.clock import SystemClock
from batchd.db.composed import Composed
from batchd.db.dialect import Copied, DatabaseSettings, Failure, Topic
from batchd.db.sqlite_writes import changed_rows, copied_rows, new_rows, stamped_rows
from batchd.db.types import UtcTimestamp

_BUSY_TIMEOUT = timedelta(seconds=5)
_LONGEST_BUSY_TIMEOUT = timedelta(days=24)
"""SQLite counts milliseconds in 32 bits, and takes more of them for none."""

_WAKE_POLL = timedelta(milliseconds=250)
_STEPS_BETWEEN_LOOKS = 20_000
_DAY_SECONDS = 86_400.0
_clock = SystemClock()
_NOW_FORMAT = "%Y-%m-%dT%H:%M:%f"

_writers: dict[str, threading.Lock] = {}
_writers_guard = threading.Lock()


class SqliteDialect:
    """See `batchd.db.dialect.Dialect`."""

    name = "sqlite"
    changes_in_ctes = False

    def __init__(self) -> None:
        self.composed = Composed()

    def create_engine(self, settings: DatabaseSettings) -> Engine:
        """Return an engine on a file in WAL mode with foreign keys on; `lock_timeout` is SQLite's busy timeout."""
        url = make_url(settings.url)
        busy = min(_BUSY_TIMEOUT if settings.lock_timeout is None else settings.lock_timeout, _LONGEST_BUSY_TIMEOUT)
        engine = sqlalchemy_engine(
            url,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.connect_timeout.total_seconds(),
            connect_args={"timeout": busy.total_seconds(), "isolation_level": None},
            hide_parameters=True,
        )

        @sqlalchemy_event.listens_for(engine, "do_connect")
        def _look_first(*_given: Any) -> None:
            if settings.must_exist and not Path(url.database or "").exists():
                error = sqlite3.OperationalError(f"there is no file {url.database}")
                error.sqlite_errorname = "SQLITE_CANTOPEN"
                raise error

        @sqlalchemy_event.listens_for(engine, "connect")
        def _prepare(dbapi_connection: sqlite3.Connection, _record: Any) -> None:
            _use_wal(dbapi_connection, busy)
            dbapi_connection.execute("PRAGMA synchronous = FULL").close()
            dbapi_connection.execute("PRAGMA foreign_keys = ON").close()

        # The driver's own transaction control begins too late; `writing` asks for IMMEDIATE through this option.
        @sqlalchemy_event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
            if mode is not None:
                connection.exec_driver_sql(f"BEGIN {mode}")

        return engine

    @contextlib.contextmanager
    def writing(self, connection: Connection) -> Iterator[None]:
        """Queue behind this process's other writers of the file, then make the next BEGIN an IMMEDIATE one."""
        writer = _writer_of(connection.engine)
        busy = connection.engine.pool.timeout() if hasattr(connection.engine.pool, "timeout") else 30.0
        if not writer.acquire(timeout=busy):
            raise sqlite3.OperationalError("database is locked: another writer of this process holds it")
        try:
            connection.execution_options(sqlite_begin="IMMEDIATE")
            yield
        finally:
            writer.release()

    def failure(self, error: BaseException) -> Failure:
        """Return what the error means, by SQLite's extended result code."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, sqlite3.Error):
            return Failure.OTHER
        match getattr(cause, "sqlite_errorname", ""):
            case "SQLITE_CONSTRAINT_FOREIGNKEY" | "SQLITE_CONSTRAINT_TRIGGER":
                return Failure.FOREIGN_KEY
            case "SQLITE_CONSTRAINT_UNIQUE" | "SQLITE_CONSTRAINT_PRIMARYKEY":
                return Failure.UNIQUE
            case "SQLITE_INTERRUPT":
                return Failure.CANCELLED
            case str(code) if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                return Failure.LOCK_TIMEOUT
            case str(code) if code.startswith(
                (
                    "SQLITE_CANTOPEN",
                    "SQLITE_IOERR",
                    "SQLITE_FULL",
                    "SQLITE_READONLY",
                    "SQLITE_CORRUPT",
                    "SQLITE_NOTADB",
                )
            ):
                return Failure.UNAVAILABLE
            case str(code) if code.startswith(("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG")):
                return Failure.ROW
        return Failure.LOCK_TIMEOUT if "locked" in str(cause) else Failure.OTHER

    def cancel(self, dbapi_connection: Any, *, within: timedelta) -> None:  # noqa: ARG002
        """Interrupt the running statement; SQLite answers between two steps of its machine."""
        driver: sqlite3.Connection = getattr(dbapi_connection, "driver_connection", dbapi_connection)
        with contextlib.suppress(sqlite3.Error):
            driver.interrupt()

    def insert(self, table: Table) -> Insert:
        """Return SQLite's INSERT."""
        return insert(table)

    def insert_new(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        *returning: Column[Any],
        copied: Copied | None = None,
    ) -> Sequence[Row[Any]]:
        """Insert row by row, which costs little inside the process."""
        whole = [dict(row) for row in rows]
        if copied is not None and rows:
            wanted = {"ids": list({row[copied.by] for row in rows})}
            found = connection.execute(self.composed.once(copied_rows, self, copied), wanted).all()
            copies = {row.id: dict(zip(copied.columns, row[1:], strict=True)) for row in found}
            whole = [row | copies[row[copied.by]] for row in whole if row[copied.by] in copies]
        return connection.execute(self.composed.once(new_rows, table, *returning), whole).all() if whole else ()

    def is_among(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        """Return an IN."""
        return column.in_(values)

    def is_given(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Return an IN over a JSON array: one text of the statement, however many values."""
        return column.in_(select(func.json_each(bindparam(name, type_=JSON())).table_valued("value").c.value))

    def insert_all(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        *,
        stamped: Collection[str] = (),
    ) -> None:
        """Insert row by row."""
        if rows:
            statement = self.composed.once(stamped_rows, self, table, tuple(stamped))
            connection.execute(statement, [dict(row) for row in rows])

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
        """Update row by row."""
        if not rows:
            return 0
        statement = self.composed.once(
            changed_rows, self, table, tuple(key), tuple(rows[0]), tuple(where.items()), tuple(stamped)
        )
        given = [{f"given_{name}": value for name, value in row.items()} for row in rows]
        return connection.execute(statement, given).rowcount

    def follow_order(self, connection: Connection) -> None:
        """Do nothing: SQLite goes by the indexes that there are."""

    def fetch_by_itself(self, engine: Engine, statement: str, given: Mapping[str, Any]) -> None:
        """Do nothing: SQLite's statements cost no trips."""

    def now(self) -> ColumnElement[datetime]:
        """Return the clock as text with milliseconds, in the shape of `UtcTimestamp`."""
        return _as_moment(func.strftime(_NOW_FORMAT, "now"))

    def now_plus(self, seconds: float | ColumnElement[Any]) -> ColumnElement[datetime]:
        """Return the clock plus seconds, in the shape of `UtcTimestamp`."""
        amount = seconds if isinstance(seconds, ColumnElement) else literal(seconds)
        modifier = cast(amount, String).concat(" seconds")
        return _as_moment(func.strftime(_NOW_FORMAT, "now", modifier))

    def seconds_between(self, earlier: ColumnElement[Any], later: ColumnElement[Any]) -> ColumnElement[float]:
        """Return the difference of Julian days, exact to the millisecond."""
        return (func.julianday(later) - func.julianday(earlier)) * _DAY_SECONDS

    def json_number(self, document: ColumnElement[Any], key: str) -> ColumnElement[float]:
        """Return it by `json_type`."""
        path = f'$."{key}"'
        plain = type_coerce(document, String)
        return case((func.json_type(plain, path).in_(["integer", "real"]), func.json_extract(plain, path)))

    def json_list_has(self, document: ColumnElement[Any], member: str) -> ColumnElement[bool]:
        """Look for it in `json_each`."""
        members = func.json_each(type_coerce(document, String)).table_valued("value")
        return select(literal(1)).select_from(members).where(members.c.value == member).exists()

    @contextlib.contextmanager
    def read_only(self, connection: Connection) -> Iterator[None]:
        """Set `PRAGMA query_only` for the block; a transaction of WAL mode sees one snapshot anyway."""
        connection.exec_driver_sql("PRAGMA query_only = ON")
        try:
            yield
        finally:
            connection.exec_driver_sql("PRAGMA query_only = OFF")

    @contextlib.contextmanager
    def time_limit(self, connection: Connection, limit: timedelta) -> Iterator[None]:
        """Interrupt through SQLite's progress handler, which it calls every so many steps of its machine."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        deadline = _clock.monotonic() + limit.total_seconds()
        driver.set_progress_handler(lambda: _clock.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
        try:
            yield
        finally:
            driver.set_progress_handler(None, 0)

    @contextlib.contextmanager
    def without_transaction(self, connection: Connection) -> Iterator[None]:
        """Queue behind the other writers and begin nothing: SQLite then commits each statement."""
        with self.writing(connection):
            connection.execution_options(sqlite_begin=None)
            yield

    def rows_changed(self, connection: Connection, rowcount: int) -> int | None:
        """Ask SQLite where the driver does not know: of a change that begins with WITH."""
        changed: int = connection.exec_driver_sql("SELECT changes()").scalar_one() if rowcount < 0 else rowcount
        return changed

    def explain(self, statement: str) -> str:
        """Return EXPLAIN QUERY PLAN, which prepares the statement."""
        return f"EXPLAIN QUERY PLAN {statement}"

    def lock_for_transaction(self, connection: Connection, name: str) -> None:
        """Do nothing: BEGIN IMMEDIATE has already kept every other writer out."""

    def lock_unique_keys(self, connection: Connection, keys: Sequence[str]) -> None:
        """Do nothing: BEGIN IMMEDIATE has already kept every other writer out."""

    def begin_chunk(self, connection: Connection) -> None:
        """Do nothing: a deferred reference fails at the commit, and a commit that does not wait would block others."""

    def set_for_transaction(
        self,
        connection: Connection,
        *,
        lock_timeout: timedelta | None = None,
        statement_timeout: timedelta | None = None,
        waits_for_disk: bool = True,
    ) -> None:
        """Do nothing: BEGIN IMMEDIATE has waited for the only lock there is; the rest is set for a connection."""

    def tidy(self, engine: Engine, *, thoroughly: bool) -> None:
        """Copy the WAL into the file as far as readers allow; thoroughly: also cut it to nothing if nobody reads."""
        pooled = engine.raw_connection()
        try:
            driver = pooled.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            (patience,) = driver.execute("PRAGMA busy_timeout").fetchone()
            driver.execute("PRAGMA busy_timeout = 20").close()
            try:
                with contextlib.suppress(sqlite3.OperationalError):  # somebody else is at it
                    driver.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if thoroughly else 'PASSIVE'})").close()
            finally:
                driver.execute(f"PRAGMA busy_timeout = {patience}").close()
        finally:
            pooled.close()

    def writers(self, connection: Connection, table: Table) -> frozenset[str]:  # noqa: ARG002
        """Return nobody: the next writer begins when the last has committed."""
        return frozenset()

    def notify(self, connection: Connection, topics: Iterable[Topic]) -> None:
        """Do nothing: the commit itself moves `PRAGMA data_version`, which every listener polls."""

    def wake_source(self, engine: Engine) -> SqliteWakeSource:
        """Return a poll of `PRAGMA data_version`."""
        return SqliteWakeSource(engine)


class SqliteWakeSource:
    """Polls `PRAGMA data_version`, which changes when any other connection has committed; one read of shared memory."""

    def __init__(self, engine: Engine) -> None:
        self._pooled = engine.raw_connection()
        self._pooled.detach()
        self._seen = self._version()
        self._closing = threading.Event()

    def wait(self, timeout: timedelta) -> frozenset[Topic]:
        """Return every topic when anything was committed since the last call: SQLite does not say what."""
        left = timeout
        while True:
            version = self._version()
            if version != self._seen:
                self._seen = version
                return frozenset(Topic)
            if left <= timedelta(0) or self._closing.wait(min(left, _WAKE_POLL).total_seconds()):
                return frozenset()
            left -= _WAKE_POLL

    def close(self) -> None:
        """Close the connection; never raises."""
        self._closing.set()
        with contextlib.suppress(sqlite3.Error):
            self._pooled.close()

    def _version(self) -> int:
        cursor = self._pooled.cursor()
        try:
            cursor.execute("PRAGMA data_version")
            (version,) = cursor.fetchone() or (0,)
            return int(version)
        finally:
            cursor.close()


def _use_wal(connection: sqlite3.Connection, patience: timedelta) -> None:
    """Put the file into WAL mode, where it stays; wait while others open it for the first time as well.

    The switch needs the file for itself and answers "database is locked" at once: SQLite's busy handler does not wait
    for it, lest two connections wait for each other.
    """
    retrying = Retrying(
        retry=retry_if_exception(_is_busy),
        wait=wait_random(min=0.005, max=0.03),
        stop=stop_after_delay(patience),
        reraise=True,
    )
    for attempt in retrying:
        with attempt:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            if mode != "wal":
                connection.execute("PRAGMA journal_mode = WAL").close()


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorname.startswith("SQLITE_BUSY")


def _as_moment(milliseconds: ColumnElement[Any]) -> ColumnElement[datetime]:
    return type_coerce(cast(milliseconds, String).concat("000Z"), UtcTimestamp())


def _writer_of(engine: Engine) -> threading.Lock:
    file = engine.url.database or ":memory:"
    key = str(Path(file).resolve())
    with _writers_guard:
        return _writers.setdefault(key, threading.Lock())
