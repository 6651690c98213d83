"""One database: a pool, transactions that say what went wrong in batchd's words, statements that can be cancelled."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from batchd.db.dialect import DatabaseSettings, Dialect, Failure
from batchd.errors import (
    BatchdError,
    DatabaseUnavailable,
    LockTimeout,
    RunInterrupted,
    StatementCancelled,
    StopReason,
)

_CANCEL_WITHIN = timedelta(seconds=2)

_BETWEEN_LINES = re.compile(r"(?<![.:;,!?])\n")
_DIALECTS = {"postgresql": "PostgresDialect", "sqlite": "SqliteDialect"}
"""Each stands in a module of its name; only the one in use is imported, and its driver with it."""


class Interrupts:
    """The connections that one attempt has in use, so that another thread can end their statements.

    Any thread may call any method. After `cancel`, every transaction begun with these interrupts raises
    RunInterrupted at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._active: dict[int, tuple[Dialect, Any]] = {}
        self._being_cancelled: set[int] = set()
        self._stops: dict[int, Callable[[StopReason], None]] = {}
        self._reason: StopReason | None = None

    @property
    def reason(self) -> StopReason | None:
        """Return why the statements were cancelled, or None while they may run."""
        return self._reason

    def cancel(self, reason: StopReason, *, within: timedelta = _CANCEL_WITHIN) -> None:
        """End every running statement in its server and let no further transaction begin.

        A server that does not answer the request `within` this time has its connection cut instead.
        """
        with self._lock:
            self._reason = self._reason or reason
            active = list(self._active)
            stops = list(self._stops.values())
        for stop in stops:
            stop(reason)
        for key in active:
            self._cancel_one(key, within)

    def _cancel_one(self, key: int, within: timedelta) -> None:
        with self._lock:
            if key not in self._active or key in self._being_cancelled:
                return
            dialect, dbapi_connection = self._active[key]
            self._being_cancelled.add(key)
        try:
            dialect.cancel(dbapi_connection, within=within)
        finally:
            with self._lock:
                self._being_cancelled.discard(key)
                self._lock.notify_all()

    @contextlib.contextmanager
    def calling(self, stop: Callable[[StopReason], None]) -> Iterator[None]:
        """Call `stop` at each `cancel`, on its thread; raises RunInterrupted when `cancel` came first."""
        with self._lock:
            if self._reason is not None:
                raise RunInterrupted(self._reason)
            self._stops[id(stop)] = stop
        try:
            yield
        finally:
            with self._lock:
                self._stops.pop(id(stop), None)

    @contextlib.contextmanager
    def tracking(self, dialect: Dialect, connection: Connection) -> Iterator[None]:
        """Count the connection as in use; raises RunInterrupted when `cancel` came first."""
        dbapi_connection = connection.connection.driver_connection
        with self._lock:
            if self._reason is not None:
                raise RunInterrupted(self._reason)
            self._active[id(connection)] = (dialect, dbapi_connection)
        try:
            yield
        finally:
            with self._lock:
                # A cancel under way must hit nobody else: the pool may hand the connection on the next moment.
                while id(connection) in self._being_cancelled:
                    self._lock.wait()
                self._active.pop(id(connection), None)


class Database:
    """A pool of connections to one database. Any thread may use it; it connects at the first transaction.

    Driver errors leave `reading` and `writing` as DatabaseUnavailable, LockTimeout or StatementCancelled, with the
    driver's error as their cause; errors of other kinds (a missing table, a broken constraint) as SQLAlchemy raised
    them. `dialect` stands in for that of the URL (`batchd.db.simulated`).
    """

    def __init__(self, settings: DatabaseSettings, dialect: Dialect | None = None) -> None:
        self.name = settings.name
        self.settings = settings
        self.dialect = dialect or dialect_of(settings.url)
        self.engine = self.dialect.create_engine(settings)

    def __repr__(self) -> str:
        return f"Database({self.name!r}, {masked(self.settings.url)!r})"

    @contextlib.contextmanager
    def reading(self, interrupts: Interrupts | None = None) -> Iterator[Connection]:
        """Yield a connection inside a transaction that is rolled back at the end; in the store nothing is written.

        There it ends with a commit: psycopg forgets at a rollback all statements that the session has prepared.
        """
        with self.translating(), self.engine.connect() as connection, self._tracked(connection, interrupts):
            yield connection
            if self.settings.is_store:
                connection.commit()

    @contextlib.contextmanager
    def writing(self, interrupts: Interrupts | None = None) -> Iterator[Connection]:
        """Yield a connection inside a transaction that commits at the end, or rolls back on any exception."""
        with (
            self.translating(),
            self.engine.connect() as connection,
            self._tracked(connection, interrupts),
            self.dialect.writing(connection),
            connection.begin(),
        ):
            yield connection

    def by_itself(self, statement: str, given: Mapping[str, Any]) -> Sequence[Any] | None:
        """Execute a statement as a transaction, with `Dialect.follow_order`, and return its row; for one thread.

        It is in the driver's words, and goes over a connection that is not the pool's and stays open: it costs one
        round trip, and no plan. Errors that `reading` leaves to SQLAlchemy are the driver's own. None, and nothing has
        happened: where the dialect does no such thing, or a pooler stands between.
        """
        if not self.dialect.changes_in_ctes:
            return None
        with self.translating():
            return self.dialect.fetch_by_itself(self._in_order, statement, given)

    @functools.cached_property
    def _in_order(self) -> Engine:
        return self.dialect.create_engine(replace(self.settings, pool_size=1, in_order=True))

    def failure(self, error: BaseException) -> Failure:
        """Return what a driver's error means on this database."""
        return self.dialect.failure(error)

    def close(self) -> None:
        """Close the pool's idle connections; connections in use are closed when they come back."""
        self.engine.dispose()
        in_order: Engine | None = vars(self).get("_in_order")
        if in_order is not None:
            in_order.dispose()

    @contextlib.contextmanager
    def _tracked(self, connection: Connection, interrupts: Interrupts | None) -> Iterator[None]:
        if interrupts is None:
            yield
            return
        with interrupts.tracking(self.dialect, connection):
            try:
                yield
            except Exception as error:
                if interrupts.reason is not None and _is_driver_error(error):
                    # The statement ended because we cancelled it: whatever the driver says, that is the reason.
                    raise RunInterrupted(interrupts.reason) from error
                raise

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """Raise driver errors of the block in batchd's words, as `reading` and `writing` do."""
        try:
            yield
        except PoolTimeout as error:
            raise DatabaseUnavailable(
                f"database {self.name!r}: no free connection in {self.settings.connect_timeout.total_seconds():g} s",
                hint="raise its `pool_size`, or let fewer jobs use it at once",
            ) from error
        except Exception as error:
            if not _is_driver_error(error):
                raise
            self._raise_named(error)

    def _raise_named(self, error: Exception) -> NoReturn:
        said = driver_message(error)
        match self.dialect.failure(error):
            case Failure.UNAVAILABLE:
                raise DatabaseUnavailable(f"database {self.name!r} is unreachable: {said}") from error
            case Failure.LOCK_TIMEOUT:
                raise LockTimeout(f"database {self.name!r}: gave up waiting for a lock: {said}") from error
            case Failure.CANCELLED:
                raise StatementCancelled(f"database {self.name!r}: the statement was cancelled: {said}") from error
            case Failure.FOREIGN_KEY | Failure.UNIQUE | Failure.ROW | Failure.OTHER:
                raise error


def dialect_of(url: str) -> Dialect:
    """Return the dialect of a database URL; raises BatchdError with a masked URL for any other."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BatchdError("not a database URL; write postgresql://user@host/name or sqlite:///file.db") from error
    backend = parsed.get_backend_name()
    if backend not in _DIALECTS:
        raise BatchdError(f"{masked(url)}: batchd knows postgresql and sqlite, not {backend!r}")
    if backend == "postgresql" and parsed.query.keys() & {"host", "port"}:
        try:
            parsed.set(drivername="postgresql+psycopg").get_dialect()().create_connect_args(parsed)
        except ArgumentError as error:
            raise BatchdError(f"{masked(url)}: {error}; write one port for each host, `port=5432,5432`") from error
    dialect: type[Dialect] = getattr(import_module(f"batchd.db.{backend}"), _DIALECTS[backend])
    return dialect()


def masked(url: str) -> str:
    """Return the URL with every password replaced, also one that stands in the query (SQLAlchemy prints those)."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return "***"
    secret_keys = [key for key in parsed.query if _is_secret(key)]
    if secret_keys:
        parsed = parsed.update_query_dict(dict.fromkeys(secret_keys, "***"))
    return parsed.render_as_string(hide_password=True)


def secrets_in(url: str) -> frozenset[str]:
    """Return the passwords in a database URL, those in its query included."""
    parsed = make_url(url)
    found = [parsed.password, *(value for key, value in parsed.query.items() if _is_secret(key))]
    return frozenset(secret for secret in found if isinstance(secret, str))


def _is_secret(key: str) -> bool:
    return "pass" in key.lower() or "secret" in key.lower()


def file_of(url: str) -> str | None:
    """Return the file of a SQLite URL; None for a database in memory or on a server."""
    parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in {None, "", ":memory:"}
    return parsed.database if is_file else None


def driver_message(error: BaseException) -> str:
    """Return what the driver said, on one line, without SQL, parameters or SQLAlchemy's link."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = [" ".join(line.split()) for line in str(cause).splitlines()]
    told = [line for line in lines if line.strip("^ ")]  # a caret points at a place of the line above
    return _BETWEEN_LINES.sub("; ", "\n".join(told)).replace("\n", " ") or type(cause).__name__


def brief_message(error: BaseException) -> str:
    """Return what is wrong, on one line: of a driver's words not the details, which repeat what is in the rows."""
    return driver_message(error).partition(" DETAIL:")[0].rstrip(";") if isinstance(error, DBAPIError) else str(error)


def _is_driver_error(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        return True
    return any(base.__module__.startswith(("psycopg", "sqlite3")) for base in type(error).__mro__)
