"""What a running job sees: `batchd.jobs.contract.JobContext` over one attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.db.storable import storable_count, storable_text
from batchd.domain.job import JsonObject, JsonValue
from batchd.engine.running import RunningAttempt
from batchd.errors import ParamsInvalid, StopReason
from batchd.jobs.children import enqueue_for, stored_children
from batchd.jobs.contract import Children, Handover, Log
from batchd.store import checkpoints, results, watermarks
from batchd.store.checkpoints import CheckpointKey
from batchd.store.claimed import Claim
from batchd.store.enqueue import NewRun
from batchd.store.leases import Progress
from batchd.store.meta import RECORD, record_id
from batchd.store.rejects import Reject, keep
from batchd.telemetry.logs import get_logger

if TYPE_CHECKING:
    from batchd.jobs.batch import Batch
    from batchd.mail.delivery import MailSettings
    from batchd.store.digest import Digest

STORE = "[store]"
"""What stands among the names of databases with checkpoints for the store itself: names that none of the config has."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every attempt of this daemon shares. `mask` returns a value of JSON without the config's secrets."""

    store: Database
    store_id: str
    databases: Mapping[str, Database]
    clock: Clock
    mask: Callable[[Any], Any]
    mail: MailSettings | None = None


class AttemptContext:
    """See `JobContext`. Made and used by the attempt's thread."""

    def __init__(self, running: RunningAttempt, around: Surroundings) -> None:
        claim = running.claim
        self.run_id = claim.run_id
        self.job = claim.job or claim.kind
        self.attempt = claim.attempt
        self.scheduled_for = claim.scheduled_for
        self.store_id = around.store_id
        self.mail = around.mail
        self._running = running
        self._around = around

    @cached_property
    def log(self) -> Log:
        """See `JobContext`."""
        # Bound to the run itself, for a kind may hand it to threads of its own, which have no context variables.
        return get_logger(**self._running.claim.log_fields)

    @cached_property
    def _key(self) -> CheckpointKey:
        return checkpoint_key(self._around.store_id, self._running.claim)

    @cached_property
    def _record_key(self) -> CheckpointKey:
        return record_key(self._around.store_id, self._running.claim)

    @property
    def previous_result(self) -> Mapping[str, JsonValue] | None:
        """See `JobContext`."""
        if self._running.claim.job is None:
            return None
        return results.previous_result(self._around.store, self._running.claim.job, self.run_id)

    def now(self) -> datetime:
        """See `JobContext`."""
        return self._around.clock.now()

    def database(self, name: str) -> Database:
        """See `JobContext`; raises ParamsInvalid for a name that this daemon's config does not have."""
        database = self._around.databases.get(name)
        if database is None:
            known = ", ".join(sorted(self._around.databases)) or "none"
            raise ParamsInvalid(f"there is no [databases.{name}] in this daemon's config; it has: {known}")
        return database

    def database_names(self) -> tuple[str, ...]:
        """See `JobContext`."""
        return tuple(self._around.databases)

    def reading(self, database: Database) -> AbstractContextManager[Any]:
        """See `JobContext`."""
        return database.reading(self._running.interrupts)

    def writing(self, database: Database) -> AbstractContextManager[Any]:
        """See `JobContext`."""
        return database.writing(self._running.interrupts)

    def checkpoint(self, database: Database) -> JsonObject | None:
        """See `JobContext`."""
        name = STORE if database is self._around.store else database.name
        self._running.checkpointed[name] = database
        return checkpoints.take_over(database, self._key, self._running.interrupts)

    def save_checkpoint(self, connection: Any, database: Database, state: JsonObject) -> None:
        """See `JobContext`."""
        checkpoints.save(connection, database, self._key, state)

    def watermark(self, database: Database) -> JsonObject | None:
        """See `JobContext`."""
        job = self._running.claim.job
        return None if job is None else watermarks.find(database, self.store_id, job, self._running.interrupts)

    def save_watermark(self, connection: Any, database: Database, state: JsonObject) -> None:
        """See `JobContext`."""
        job = self._running.claim.job
        if job is not None:
            watermarks.save(connection, database, self.store_id, job, state, self.run_id)

    def keep_rejects(self, connection: Any, database: Database, rejects: Sequence[Reject], *, before: int) -> None:
        """See `JobContext`."""
        keep(connection, database, self._key, rejects, before=before)

    def recorded(self) -> JsonObject | None:
        """See `JobContext`."""
        self._running.checkpointed[RECORD] = self._around.store
        return checkpoints.take_over(self._around.store, self._record_key, self._running.interrupts)

    def record(self, state: JsonObject) -> None:
        """See `JobContext`."""
        store = self._around.store
        # Not to be interrupted: what has happened must be written down, also by a run that is told to stop.
        with store.writing() as connection:
            checkpoints.save(connection, store, self._record_key, state)

    def digest(self, since: datetime, until: datetime) -> Digest:
        """See `JobContext`."""
        from batchd.store.digest import digest  # noqa: PLC0415 (only a report needs it)

        return digest(self._around.store, since, until)

    def locked_checkpoint(self, connection: Any, database: Database) -> JsonObject | None:  # noqa: ARG002
        """See `JobContext`."""
        return checkpoints.locked(connection, self._key)

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
        from batchd.db.row_source import RowsWanted  # noqa: PLC0415 (only a job that walks rows needs it)
        from batchd.jobs import row_walk  # noqa: PLC0415

        wanted = RowsWanted(table, query, tuple(key), where, tuple(columns))
        options = row_walk.WalkOptions(name or table or "query", size, transaction=transaction, lock=lock)
        return row_walk.batches(self, database, home or database, wanted, options)

    def children(
        self, *, on_complete: NewRun | None = None, on_success: NewRun | None = None
    ) -> AbstractContextManager[Children]:
        """See `JobContext`."""
        return stored_children(self._around.store, self.run_id, on_complete, on_success)

    def enqueue(self, *runs: NewRun) -> tuple[int, ...]:
        """See `JobContext`."""
        return enqueue_for(self._around.store, self.run_id, runs)

    def when_cancelled(self, stop: Callable[[StopReason], None]) -> AbstractContextManager[None]:
        """See `JobContext`."""
        return self._running.interrupts.calling(stop)

    def handover(self) -> Handover:
        """See `JobContext`."""
        around = self._around
        databases = {name: database.settings for name, database in around.databases.items()}
        return Handover(around.store.settings, databases, self._key, self._record_key, self._running.claim.job)

    def progress(self, done: int, total: int | None = None, note: str | None = None) -> None:
        """See `JobContext`."""
        note = None if note is None else storable_text(self._around.mask(note))
        self._running.report(Progress(storable_count(done), None if total is None else storable_count(total), note))

    def raise_if_stopping(self) -> None:
        """See `JobContext`. Also stops an attempt by itself whose lease cannot be trusted any more."""
        if self._running.trusted_until < self._around.clock.monotonic():
            self._running.tell_to_stop(StopReason.LEASE_LOST)
        self._running.raise_if_stopping()

    def wait(self, pause: timedelta) -> None:
        """See `JobContext`."""
        self._running.wait(pause)

    def time_left(self) -> timedelta | None:
        """See `JobContext`."""
        if self._running.deadline is None:
            return None
        return timedelta(seconds=max(0.0, self._running.deadline - self._around.clock.monotonic()))


def checkpoint_key(store_id: str, claim: Claim) -> CheckpointKey:
    """Return under which key the claim's checkpoints are kept."""
    return CheckpointKey(store_id, claim.run_id, claim.fence)


def record_key(store_id: str, claim: Claim) -> CheckpointKey:
    """Return under which key what the claim recorded is kept."""
    return CheckpointKey(record_id(store_id), claim.run_id, claim.fence)
