"""A database whose clock is an argument: for looking ahead, and for tests that live through a month in seconds.

Only the clock is simulated. Everything else is the real thing: the same SQL on SQLite in memory, or on a PostgreSQL
server, so what a simulated daemon does to its ledger is what a daemon does to its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    StaticPool,
    String,
    bindparam,
    cast,
    func,
    literal,
    type_coerce,
)
from sqlalchemy import create_engine as sqlalchemy_engine
from sqlalchemy import event as sqlalchemy_event

from batchd.db.dialect import DatabaseSettings, Dialect, Topic
from batchd.db.engine import Database, Interrupts
from batchd.db.straight import Straight
from batchd.db.types import UtcTimestamp
from batchd.errors import DatabaseUnavailable

Now = Callable[[], datetime]
"""Returns the database's time, aware."""

Hear = Callable[[frozenset[Topic]], None]
"""Hears what a transaction wakes, before it commits."""

_MEMORY = "sqlite://"


class Weather(Protocol):
    """What befalls a simulated database."""

    def is_away(self) -> bool:
        """Return whether it cannot be reached now."""
        ...

    def loses_answer(self) -> bool:
        """Return whether the answer to this commit, which happened, gets lost."""
        ...


class Fair:
    """The weather in which nothing happens."""

    def is_away(self) -> bool:
        """See `Weather`."""
        return False

    def loses_answer(self) -> bool:
        """See `Weather`."""
        return False


class SimulatedDatabase(Database):
    """A `Database` under a simulated clock. One thread only."""

    def __init__(self, settings: DatabaseSettings, dialect: Dialect, weather: Weather) -> None:
        super().__init__(settings, dialect)
        self._weather = weather
        self._straight = Straight(self.engine, dialect.composed) if dialect.name == "sqlite" else None

    @contextlib.contextmanager
    def reading(self, interrupts: Interrupts | None = None) -> Iterator[Connection]:
        """See `Database`."""
        self._refuse_if_away()
        if self._straight is None:
            with super().reading(interrupts) as connection:
                yield connection
        else:
            with self.translating(), self._straight.reading() as connection:
                yield connection

    @contextlib.contextmanager
    def writing(self, interrupts: Interrupts | None = None) -> Iterator[Connection]:
        """See `Database`; the commit may happen and yet raise."""
        self._refuse_if_away()
        if self._straight is None:
            with super().writing(interrupts) as connection:
                yield connection
        else:
            with self.translating(), self._straight.writing() as connection:
                yield connection
        if self._weather.loses_answer():
            raise DatabaseUnavailable(f"database {self.name!r}: the answer to the commit got lost")

    def by_itself(self, statement: str, given: Mapping[str, Any]) -> Sequence[Any] | None:
        """See `Database`; it may happen and yet raise."""
        self._refuse_if_away()
        row = super().by_itself(statement, given)
        if row is not None and self._weather.loses_answer():
            raise DatabaseUnavailable(f"database {self.name!r}: the answer to the statement got lost")
        return row

    def close(self) -> None:
        """See `Database`."""
        if self._straight is not None:
            self._straight.close()
        super().close()

    def _refuse_if_away(self) -> None:
        if self._weather.is_away():
            raise DatabaseUnavailable(f"database {self.name!r} is away")


def in_memory(now: Now, hear: Hear, weather: Weather | None = None) -> SimulatedDatabase:
    """Return an empty SQLite database in memory, gone when it is closed, whose clock says `now()`."""
    settings = DatabaseSettings("simulation", _MEMORY, 1, timedelta(seconds=5), None, None)
    return SimulatedDatabase(settings, _sqlite_under(now, hear), weather or Fair())


def on_server(settings: DatabaseSettings, now: Now, hear: Hear, weather: Weather | None = None) -> SimulatedDatabase:
    """Return the PostgreSQL database of the settings under the clock `now()`: throw-away ones only."""
    return SimulatedDatabase(settings, _postgresql_under(now, hear), weather or Fair())


def _asked(now: Now) -> ColumnElement[datetime]:
    """Return what is asked anew each time that its statement is executed."""
    return bindparam(None, callable_=now, type_=UtcTimestamp(), unique=True)


def _sqlite_under(now: Now, hear: Hear) -> Dialect:
    from batchd.db.sqlite import SqliteDialect  # noqa: PLC0415 (only the driver in use is imported)

    class Simulated(SqliteDialect):
        def create_engine(self, settings: DatabaseSettings) -> Engine:
            engine = sqlalchemy_engine(settings.url, poolclass=StaticPool, connect_args={"isolation_level": None})

            @sqlalchemy_event.listens_for(engine, "connect")
            def _prepare(dbapi_connection: Any, _record: Any) -> None:
                dbapi_connection.execute("PRAGMA foreign_keys = ON").close()

            @sqlalchemy_event.listens_for(engine, "begin")
            def _begin(connection: Connection) -> None:
                driver: Any = connection.connection.driver_connection
                if not driver.in_transaction:
                    connection.exec_driver_sql("BEGIN")

            return engine

        @contextlib.contextmanager
        def writing(self, connection: Connection) -> Iterator[None]:  # noqa: ARG002 (nobody else is there)
            yield

        def now(self) -> ColumnElement[datetime]:
            return _asked(now)

        def now_plus(self, seconds: float | ColumnElement[Any]) -> ColumnElement[datetime]:
            if not isinstance(seconds, ColumnElement):
                return literal(now() + timedelta(seconds=seconds), UtcTimestamp())
            moved = func.strftime("%Y-%m-%dT%H:%M:%f", self.now(), cast(seconds, String).concat(" seconds"))
            return type_coerce(cast(moved, String).concat("000Z"), UtcTimestamp())

        def notify(self, connection: Connection, topics: Iterable[Topic]) -> None:  # noqa: ARG002
            hear(frozenset(topics))

    return Simulated()


def _postgresql_under(now: Now, hear: Hear) -> Dialect:
    from batchd.db.postgresql import PostgresDialect  # noqa: PLC0415 (only the driver in use is imported)

    def ours(sql: str) -> str:
        return sql.replace("clock_timestamp()", f"'{now().isoformat()}'::timestamptz")

    class Simulated(PostgresDialect):
        def create_engine(self, settings: DatabaseSettings) -> Engine:
            engine = super().create_engine(settings)

            # Statements that the dialect writes itself ask the server's clock by name.
            @sqlalchemy_event.listens_for(engine, "before_cursor_execute", retval=True)
            def _ask_ours(_c: Any, _cursor: Any, sql: str, given: Any, _context: Any, _many: Any) -> tuple[str, Any]:
                return ours(sql), given

            return engine

        def fetch_by_itself(self, engine: Engine, statement: str, given: Mapping[str, Any]) -> Sequence[Any] | None:
            return super().fetch_by_itself(engine, ours(statement), given)

        def now(self) -> ColumnElement[datetime]:
            return _asked(now)

        def now_plus(self, seconds: float | ColumnElement[Any]) -> ColumnElement[datetime]:
            if not isinstance(seconds, ColumnElement):
                return literal(now() + timedelta(seconds=seconds), UtcTimestamp())
            later = self.now().op("+")(func.make_interval(0, 0, 0, 0, 0, 0, seconds))
            return type_coerce(later, UtcTimestamp())

        def notify(self, connection: Connection, topics: Iterable[Topic]) -> None:  # noqa: ARG002
            hear(frozenset(topics))

    return Simulated()
