"""What an isolated run sees of the daemon: `JobContext` over the socket, with databases of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from batchd.clock import SystemClock
from batchd.db.engine import Database, Interrupts
from batchd.db.row_source import RowsWanted
from batchd.domain.job import JsonObject, JsonValue
from batchd.errors import ParamsInvalid, RunInterrupted, StopReason
from batchd.jobs import row_walk
from batchd.jobs.batch import Batch
from batchd.jobs.children import stored_children
from batchd.jobs.contract import Children, Handover
from batchd.jobs.processes.order import Order
from batchd.jobs.row_walk import WalkOptions
from batchd.mail.delivery import MailSettings
from batchd.store import checkpoints, watermarks
from batchd.store.digest import Digest, digest
from batchd.store.enqueue import NewRun
from batchd.store.rejects import Reject, keep

Ask = Callable[[str, dict[str, Any]], Any]
Tell = Callable[[dict[str, Any]], None]


class RemoteLog:
    """See `Log`: each line goes to the daemon, which puts the run's fields and the masks on it."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def debug(self, event: str, **fields: Any) -> None:
        """Log what only a developer wants to know."""
        self._tell({"log": "debug", "event": event, "fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        """Log what happened."""
        self._tell({"log": "info", "event": event, "fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Log what a person should look at some day."""
        self._tell({"log": "warning", "event": event, "fields": fields})

    def error(self, event: str, **fields: Any) -> None:
        """Log what a person should look at now."""
        self._tell({"log": "error", "event": event, "fields": fields})


class RemoteContext:
    """See `JobContext`. `ask` calls a method of the daemon's own context, `tell` sends without an answer.

    Data goes from this process straight to the job's databases, under the attempt's fence. `mail` is None: passwords
    of others stay in the daemon.
    """

    mail: MailSettings | None = None

    def __init__(self, order: Order, databases: Mapping[str, Database], ask: Ask, tell: Tell) -> None:
        facts = order.facts
        self.log = RemoteLog(tell)
        self.run_id = facts.run_id
        self.job = facts.job
        self.attempt = facts.attempt
        self.scheduled_for = facts.scheduled_for
        self.store_id = facts.store_id
        self._order = order
        self._key = order.handover.checkpoint_key
        self._databases = databases
        self._store: Database | None = None
        self._ask = ask
        self._tell = tell
        self._clock = SystemClock()
        left = facts.time_left
        self._deadline = None if left is None else self._clock.monotonic() + left.total_seconds()
        self._interrupts = Interrupts()
        self._told = threading.Event()
        self._reason: StopReason | None = None

    def stop(self, reason: StopReason, *, now: bool) -> None:
        """Tell the run to stop; with `now` its statements are cancelled and its waits end. For the reader's thread."""
        self._reason = reason
        self._told.set()
        if now:
            self._interrupts.cancel(reason)

    def close(self) -> None:
        """Close what the run has opened of the store."""
        if self._store is not None:
            self._store.close()

    @property
    def previous_result(self) -> Mapping[str, JsonValue] | None:
        """See `JobContext`."""
        found: Mapping[str, JsonValue] | None = self._ask("previous_result", {})
        return found

    def now(self) -> datetime:
        """See `JobContext`."""
        return self._clock.now()

    def database(self, name: str) -> Database:
        """See `JobContext`."""
        database = self._databases.get(name)
        if database is None:
            known = ", ".join(sorted(self._databases)) or "none"
            raise ParamsInvalid(f"there is no [databases.{name}] in this daemon's config; it has: {known}")
        return database

    def database_names(self) -> tuple[str, ...]:
        """See `JobContext`."""
        return tuple(self._databases)

    def reading(self, database: Database) -> AbstractContextManager[Any]:
        """See `JobContext`."""
        return database.reading(self._interrupts)

    def writing(self, database: Database) -> AbstractContextManager[Any]:
        """See `JobContext`."""
        return database.writing(self._interrupts)

    def checkpoint(self, database: Database) -> JsonObject | None:
        """See `JobContext`; the daemon asks, so that it knows which databases to sweep."""
        if database is self._store:
            return checkpoints.take_over(database, self._key, self._interrupts)
        found: JsonObject | None = self._ask("checkpoint", {"database": self._name_of(database)})
        return found

    def save_checkpoint(self, connection: Any, database: Database, state: JsonObject) -> None:
        """See `JobContext`."""
        checkpoints.save(connection, database, self._key, state)

    def locked_checkpoint(self, connection: Any, database: Database) -> JsonObject | None:  # noqa: ARG002
        """See `JobContext`."""
        return checkpoints.locked(connection, self._key)

    def watermark(self, database: Database) -> JsonObject | None:
        """See `JobContext`."""
        found: JsonObject | None = self._ask("watermark", {"database": self._name_of(database)})
        return found

    def save_watermark(self, connection: Any, database: Database, state: JsonObject) -> None:
        """See `JobContext`."""
        job = self._order.handover.watermark_job
        if job is not None:
            watermarks.save(connection, database, self.store_id, job, state, self.run_id)

    def keep_rejects(self, connection: Any, database: Database, rejects: Sequence[Reject], *, before: int) -> None:
        """See `JobContext`."""
        keep(connection, database, self._key, rejects, before=before)

    def recorded(self) -> JsonObject | None:
        """See `JobContext`."""
        found: JsonObject | None = self._ask("recorded", {})
        return found

    def record(self, state: JsonObject) -> None:
        """See `JobContext`."""
        self._ask("record", {"state": state})

    def digest(self, since: datetime, until: datetime) -> Digest:
        """See `JobContext`."""
        return digest(self._opened_store(), since, until)

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
        """See `JobContext`."""
        wanted = RowsWanted(table, query, tuple(key), where, tuple(columns))
        options = WalkOptions(name or table or "query", size, transaction=transaction, lock=lock)
        return row_walk.batches(self, database, home or database, wanted, options)

    def children(
        self, *, on_complete: NewRun | None = None, on_success: NewRun | None = None
    ) -> AbstractContextManager[Children]:
        """See `JobContext`."""
        return stored_children(self._opened_store(), self.run_id, on_complete, on_success)

    def enqueue(self, *runs: NewRun) -> tuple[int, ...]:
        """See `JobContext`."""
        return tuple(self._ask("enqueue", {"runs": [asdict(run) for run in runs]}))

    def when_cancelled(self, stop: Callable[[StopReason], None]) -> AbstractContextManager[None]:
        """See `JobContext`."""
        return self._interrupts.calling(stop)

    def handover(self) -> Handover:
        """See `JobContext`."""
        return self._order.handover

    def progress(self, done: int, total: int | None = None, note: str | None = None) -> None:
        """See `JobContext`."""
        self._tell({"progress": {"done": done, "total": total, "note": note}})

    def raise_if_stopping(self) -> None:
        """See `JobContext`."""
        if self._reason is not None:
            raise RunInterrupted(self._reason)

    def wait(self, pause: timedelta) -> None:
        """See `JobContext`."""
        self._told.wait(max(0.0, pause.total_seconds()))
        self.raise_if_stopping()

    def time_left(self) -> timedelta | None:
        """See `JobContext`."""
        if self._deadline is None:
            return None
        return timedelta(seconds=max(0.0, self._deadline - self._clock.monotonic()))

    def _name_of(self, database: Database) -> str:
        return next(name for name, known in self._databases.items() if known is database)

    def _opened_store(self) -> Database:
        if self._store is None:
            self._store = Database(self._order.handover.store)
        return self._store
