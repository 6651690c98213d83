"""What differs between databases, as one Protocol; `postgresql.py` and `sqlite.py` each fill it in."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Column, ColumnElement, Connection, Engine, Row, Table

from batchd.db.composed import Composed

if TYPE_CHECKING:  # each dialect's own module imports SQLAlchemy's; a daemon needs one of them
    from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert


class Topic(enum.StrEnum):
    """What a store write may wake in this process and in others."""

    RUNS = "runs"
    SCHEDULES = "schedules"
    CANCEL = "cancel"


class Failure(enum.Enum):
    """What a driver's error means to the one who must decide what to do next."""

    UNAVAILABLE = enum.auto()
    LOCK_TIMEOUT = enum.auto()
    CANCELLED = enum.auto()
    FOREIGN_KEY = enum.auto()
    UNIQUE = enum.auto()
    ROW = enum.auto()
    """A value that does not fit its column, or a row that breaks another rule of its table: a CHECK, a trigger."""
    OTHER = enum.auto()


@dataclass(frozen=True, slots=True)
class Copied:
    """Columns of new rows that come from the row of `source` whose `id` is what theirs has in `by`.

    Where there is no such row, there is no new one.
    """

    columns: tuple[str, ...]
    source: Table
    by: str


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """How to reach one database. `statement_timeout` and `lock_timeout` None mean no limit of ours.

    `must_exist` keeps SQLite from making the file, as it does for every name that it is given. `is_store` says that
    batchd's own tables are there: a moment in them that Python's calendar does not have reads as the calendar's end.
    `replans` has every statement planned anew but in transactions that follow an order: for a daemon, which lives while
    its tables grow from nothing to millions of rows. `in_order` is for `Database.by_itself`. `url` is a secret: it
    may hold a password.
    """

    name: str
    url: str = field(repr=False)
    pool_size: int
    connect_timeout: timedelta
    statement_timeout: timedelta | None
    lock_timeout: timedelta | None
    must_exist: bool = False
    is_store: bool = False
    replans: bool = False
    in_order: bool = False


class Dialect(Protocol):
    """The differences. Implementations hold no state but statements; any thread may call them."""

    name: str
    composed: Composed
    changes_in_ctes: bool
    """Whether a WITH may hold an INSERT or an UPDATE whose rows the rest of the statement uses."""

    def create_engine(self, settings: DatabaseSettings) -> Engine:
        """Return an engine whose connections have the settings' timeouts and answer in UTC; connects lazily."""
        ...

    def writing(self, connection: Connection) -> AbstractContextManager[None]:
        """Hold whatever a write transaction needs beyond BEGIN (SQLite's one-writer lock)."""
        ...

    def failure(self, error: BaseException) -> Failure:
        """Return what the driver's error `error` (a SQLAlchemy DBAPIError or its cause) means."""
        ...

    def cancel(self, dbapi_connection: Any, *, within: timedelta) -> None:
        """End the statement that another thread is running on the connection, by force if it is not gone in time.

        Never raises: the connection may be gone already.
        """
        ...

    def insert(self, table: Table) -> PostgresInsert | SqliteInsert:
        """Return an INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
        ...

    def insert_new(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        *returning: Column[Any],
        copied: Copied | None = None,
    ) -> Sequence[Row[Any]]:
        """Insert many rows, all with the same columns, leaving out those that break a unique rule.

        Return the columns of the new ones, in the order of the rows. Values are what JSON has, and aware datetimes.
        """
        ...

    def is_among(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        """Return the condition that the column has one of the values: one statement, however many they are."""
        ...

    def is_given(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Return the condition that the column, of text or of numbers, has one of the values in the parameter: a list.

        As `is_among`, for statements that are put together once.
        """
        ...

    def insert_all(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        *,
        stamped: Collection[str] = (),
    ) -> None:
        """Insert many rows as `insert_new` does; one that breaks a unique rule fails the statement.

        The columns `stamped` get the database's time.
        """
        ...

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
        """Set, in the row whose `key` columns equal those of a mapping, the mapping's other values.

        All mappings have the same columns. `where` names columns that must have a value as well, and the columns
        `stamped` get the database's time. Return how many rows were changed.
        """
        ...

    def follow_order(self, connection: Connection) -> None:
        """Let the transaction's statements read ordered rows from an index in that order, whatever statistics say.

        For queues: a planner that does not know yet of a hundred thousand new rows would sort them for each one.
        """
        ...

    def fetch_by_itself(self, engine: Engine, statement: str, given: Mapping[str, Any]) -> Sequence[Any] | None:
        """See `Database.by_itself`; `engine` was created with `in_order`."""
        ...

    def now(self) -> ColumnElement[datetime]:
        """Return the database's clock as an expression; moves within a transaction."""
        ...

    def now_plus(self, seconds: float | ColumnElement[Any]) -> ColumnElement[datetime]:
        """Return the database's clock plus seconds (may be negative) as an expression."""
        ...

    def seconds_between(self, earlier: ColumnElement[Any], later: ColumnElement[Any]) -> ColumnElement[float]:
        """Return how many seconds lie between two moments (columns of `UtcTimestamp`, or bound ones)."""
        ...

    def json_number(self, document: ColumnElement[Any], key: str) -> ColumnElement[float]:
        """Return the number that a JSON object has under a key; NULL when there is none, or it is no number."""
        ...

    def json_list_has(self, document: ColumnElement[Any], member: str) -> ColumnElement[bool]:
        """Return whether a JSON list has the text among its members; not so where there is none."""
        ...

    def read_only(self, connection: Connection) -> AbstractContextManager[None]:
        """Let the transaction, which must be new, see one snapshot and refuse every write, until the block ends."""
        ...

    def without_transaction(self, connection: Connection) -> AbstractContextManager[None]:
        """Let each statement of the block commit by itself, for those that refuse a transaction (VACUUM).

        The connection must be new: nothing may have been executed on it.
        """
        ...

    def rows_changed(self, connection: Connection, rowcount: int) -> int | None:
        """Return how many rows the last statement, a change, has changed; `rowcount` is what the driver says."""
        ...

    def time_limit(self, connection: Connection, limit: timedelta) -> AbstractContextManager[None]:
        """End each statement of the block that takes longer (Failure.CANCELLED)."""
        ...

    def explain(self, statement: str) -> str:
        """Return SQL that has the database look at a statement, names and rights included, and not execute it."""
        ...

    def lock_for_transaction(self, connection: Connection, name: str) -> None:
        """Wait for the advisory lock `name`; the end of the transaction gives it back."""
        ...

    def lock_unique_keys(self, connection: Connection, keys: Sequence[str]) -> None:
        """Wait until nobody else looks at the unique keys, until the transaction ends (a no-op with one writer)."""
        ...

    def begin_chunk(self, connection: Connection) -> None:
        """Prepare a transaction that is one of many: each statement checks its rows, and the commit need not wait.

        Deferred constraints are checked at once. The commit may return before it is on the server's disk: a crash of
        the server can then take the last chunks back, but never without their checkpoint. So let the last transaction
        of the run be an ordinary one; with it all before it are durable.
        """
        ...

    def set_for_transaction(
        self,
        connection: Connection,
        *,
        lock_timeout: timedelta | None = None,
        statement_timeout: timedelta | None = None,
        waits_for_disk: bool = True,
    ) -> None:
        """Set what holds until the transaction ends, in one round trip; SQLite has nothing of the kind.

        After `lock_timeout` a statement gives up its wait for a lock, after `statement_timeout` it is cancelled. A
        commit that does not wait for the disk may be undone by a crash of the server, as a whole.
        """
        ...

    def tidy(self, engine: Engine, *, thoroughly: bool) -> None:
        """Work off what a series of write transactions piles up (SQLite's WAL); waits for nobody."""
        ...

    def writers(self, connection: Connection, table: Table) -> frozenset[str]:
        """Return the transactions that may have changed the table's rows and are still open, by names of no meaning.

        Empty where writers come one after the other (SQLite).
        """
        ...

    def notify(self, connection: Connection, topics: Iterable[Topic]) -> None:
        """Wake every listener on the topics once the transaction commits."""
        ...

    def wake_source(self, engine: Engine) -> WakeSource:
        """Return a new listener on one connection of its own."""
        ...


class WakeSource(Protocol):
    """Listens to what other processes (and this one) commit. For one thread; raises DBAPI errors when it is cut off."""

    def wait(self, timeout: timedelta) -> frozenset[Topic]:
        """Return the topics that were woken, or none when nothing came within the timeout."""
        ...

    def close(self) -> None:
        """Give the connection back; never raises."""
        ...
