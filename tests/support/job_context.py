"""A `JobContext` over real databases, for tests of kinds without an engine.

    context = DirectContext({"app": database})
    result = KIND.run(KIND.params(database="app", ...), context)

`stop_at_check` ends the attempt as a shutdown does, at the n-th `raise_if_stopping`; `next_attempt()` gives the context
of the attempt that resumes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from batchd.clock import Clock, SystemClock
from batchd.db.engine import Database, Interrupts
from batchd.db.row_source import RowsWanted
from batchd.domain.job import JsonObject, JsonValue
from batchd.errors import RunInterrupted, StopReason
from batchd.jobs.batch import Batch
from batchd.jobs.children import enqueue_for, stored_children
from batchd.jobs.contract import Children, Handover
from batchd.jobs.row_walk import WalkOptions, batches
from batchd.mail.delivery import MailSettings
from batchd.store import watermarks
from batchd.store.checkpoints import CheckpointKey, locked, save, take_over
from batchd.store.digest import Digest, digest
from batchd.store.enqueue import NewRun
from batchd.store.rejects import Reject, keep

STORE_ID = "00000000-0000-4000-8000-000000000000"
_run_ids = itertools.count(1)


@dataclass(frozen=True)
class Line:
    """One line that a kind logged."""

    level: str
    event: str
    fields: Mapping[str, Any]


class CollectedLog:
    """A `Log` that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.lines.append(Line("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(Line("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(Line("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(Line("error", event, fields))

    def events(self, level: str | None = None) -> list[str]:
        """The events of one level, or of all, in order."""
        return [line.event for line in self.lines if level in (None, line.level)]


@dataclass
class DirectContext:
    """See the module; `progressed` holds every (done, total, note) that the kind reported."""

    databases: Mapping[str, Database]
    scheduled_for: datetime | None = None
    previous_result: Mapping[str, JsonValue] | None = None
    run_id: int = field(default_factory=lambda: next(_run_ids))
    job: str = "test-job"
    attempt: int = 1
    fence: int = 1
    clock: Clock = field(default_factory=SystemClock)
    timeout: timedelta | None = None
    stop_at_check: int | None = None
    log: CollectedLog = field(default_factory=CollectedLog)
    progressed: list[tuple[int, int | None, str | None]] = field(default_factory=list)
    store: Database | None = None
    interrupts: Interrupts = field(default_factory=Interrupts)
    checks: int = 0
    store_id: str = STORE_ID
    mail: MailSettings | None = None

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._deadline = None if self.timeout is None else self.clock.monotonic() + self.timeout.total_seconds()

    def next_attempt(self, **changes: Any) -> DirectContext:
        """Return the context of the attempt that resumes this run after it was interrupted."""
        facts: dict[str, Any] = {
            "databases": self.databases,
            "scheduled_for": self.scheduled_for,
            "previous_result": self.previous_result,
            "run_id": self.run_id,
            "job": self.job,
            "attempt": self.attempt + 1,
            "fence": self.fence + 1,
            "clock": self.clock,
            "store": self.store,
            "mail": self.mail,
        }
        return DirectContext(**(facts | changes))

    def stop(self, reason: StopReason = StopReason.SHUTDOWN) -> None:
        """End the attempt from another thread: its statements are cancelled and its waits end."""
        self._stopped.set()
        self.interrupts.cancel(reason)

    def now(self) -> datetime:
        return self.clock.now()

    def database(self, name: str) -> Database:
        return self.databases[name]

    def database_names(self) -> tuple[str, ...]:
        return tuple(self.databases)

    def reading(self, database: Database) -> AbstractContextManager[Connection]:
        return database.reading(self.interrupts)

    @contextmanager
    def writing(self, database: Database) -> Iterator[Connection]:
        with database.writing(self.interrupts) as connection:
            yield connection

    def checkpoint(self, database: Database) -> JsonObject | None:
        return take_over(database, self._key(), self.interrupts)

    def save_checkpoint(self, connection: Connection, database: Database, state: JsonObject) -> None:
        save(connection, database, self._key(), state)

    def watermark(self, database: Database) -> JsonObject | None:
        return watermarks.find(database, STORE_ID, self.job, self.interrupts)

    def save_watermark(self, connection: Connection, database: Database, state: JsonObject) -> None:
        watermarks.save(connection, database, STORE_ID, self.job, state, self.run_id)

    def keep_rejects(
        self, connection: Connection, database: Database, rejects: Sequence[Reject], *, before: int
    ) -> None:
        keep(connection, database, self._key(), rejects, before=before)

    def recorded(self) -> JsonObject | None:
        assert self.store, "this kind needs a store"
        return take_over(self.store, self._key(), self.interrupts)

    def record(self, state: JsonObject) -> None:
        assert self.store
        with self.store.writing() as connection:
            save(connection, self.store, self._key(), state)

    def digest(self, since: datetime, until: datetime) -> Digest:
        assert self.store
        return digest(self.store, since, until)

    def locked_checkpoint(self, connection: Connection, database: Database) -> JsonObject | None:
        return locked(connection, self._key())

    def batches(
        self,
        database: Database,
        *,
        table: str | None = None,
        query: str | None = None,
        key: Sequence[str] = (),
        where: str | None = None,
        columns: Sequence[str] = (),
        size: int = 1000,
        lock: bool = False,
        transaction: bool = True,
        home: Database | None = None,
        name: str | None = None,
    ) -> AbstractContextManager[Iterator[Batch]]:
        wanted = RowsWanted(table, query, tuple(key), where, tuple(columns))
        options = WalkOptions(name or table or "query", size, transaction=transaction, lock=lock)
        return batches(self, database, home or database, wanted, options)

    def children(
        self, *, on_complete: NewRun | None = None, on_success: NewRun | None = None
    ) -> AbstractContextManager[Children]:
        assert self.store is not None
        return stored_children(self.store, self.run_id, on_complete, on_success)

    def enqueue(self, *runs: NewRun) -> tuple[int, ...]:
        assert self.store is not None
        return enqueue_for(self.store, self.run_id, runs)

    def when_cancelled(self, stop: Callable[[StopReason], None]) -> AbstractContextManager[None]:
        return self.interrupts.calling(stop)

    def handover(self) -> Handover:
        assert self.store is not None
        databases = {name: database.settings for name, database in self.databases.items()}
        return Handover(self.store.settings, databases, self._key(), self._key(), self.job)

    def progress(self, done: int, total: int | None = None, note: str | None = None) -> None:
        self.progressed.append((done, total, note))

    def raise_if_stopping(self) -> None:
        self.checks += 1
        if self.interrupts.reason is not None:
            raise RunInterrupted(self.interrupts.reason)
        if self._deadline is not None and self.clock.monotonic() >= self._deadline:
            raise RunInterrupted(StopReason.TIMEOUT)
        if self.stop_at_check is not None and self.checks >= self.stop_at_check:
            raise RunInterrupted(StopReason.SHUTDOWN)

    def wait(self, pause: timedelta) -> None:
        if self._stopped.wait(pause.total_seconds()):
            raise RunInterrupted(self.interrupts.reason or StopReason.SHUTDOWN)

    def time_left(self) -> timedelta | None:
        if self._deadline is None:
            return None
        return timedelta(seconds=max(0.0, self._deadline - self.clock.monotonic()))

    def _key(self) -> CheckpointKey:
        return CheckpointKey(store_id=STORE_ID, run_id=self.run_id, fence=self.fence)
