"""A kind run by a command itself, without a daemon: what the job sees, and the line in the ledger that tells of it.

Checkpoints and rejects lie where a daemon's would, in the job's database, under a key made from what is being done
instead of a run's id. So the same command, given again, goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from batchd.cli.output import say
from batchd.clock import SystemClock
from batchd.config.load import Config
from batchd.db.engine import Database
from batchd.domain.job import JsonObject, JsonValue
from batchd.errors import BatchdError, JobError, StopReason, UsageError, has_beneath
from batchd.jobs.batch import Batch
from batchd.jobs.contract import Children, Handover, Kind
from batchd.jobs.fault_words import faults_text
from batchd.mail.delivery import MailSettings
from batchd.store import checkpoints, ended_runs, rejects
from batchd.store.checkpoints import CheckpointKey
from batchd.store.digest import Digest
from batchd.store.enqueue import NewRun
from batchd.store.meta import has_tables, store_id
from batchd.store.migrate import check_version
from batchd.store.rejects import Reject, RejectView, keep
from batchd.telemetry.events import message_of

_NAMESPACE = uuid.UUID("5b0c4c52-95b1-4be0-9a0c-4d8f5d0b8d31")


class DirectLog:
    """Tells a person on stderr what the job logs, unless it is to be quiet. See `Log`."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet

    def debug(self, event: str, **fields: Any) -> None:
        """Say nothing."""

    def info(self, event: str, **fields: Any) -> None:
        """Say it."""
        self._say(event, fields, None)

    def warning(self, event: str, **fields: Any) -> None:
        """Say it in yellow."""
        self._say(event, fields, "yellow")

    def error(self, event: str, **fields: Any) -> None:
        """Say it in red."""
        self._say(event, fields, "red")

    def _say(self, event: str, fields: Mapping[str, Any], color: str | None) -> None:
        if not self._is_quiet:
            say(message_of(event, fields), color=color)


class DirectContext:
    """See `JobContext`. `identity` is what makes two commands the same work; None for work that cannot be resumed."""

    attempt = 1
    run_id = 0
    scheduled_for: datetime | None = None
    previous_result: Mapping[str, JsonValue] | None = None
    mail: MailSettings | None = None

    def __init__(
        self,
        job: str,
        databases: Mapping[str, Database],
        *,
        identity: str | None,
        on_progress: Callable[[int, int | None, str | None], None],
        is_quiet: bool = False,
    ) -> None:
        self.job = job
        self.log = DirectLog(is_quiet=is_quiet)
        self._databases = databases
        self._clock = SystemClock()
        self._on_progress = on_progress
        owner = uuid.uuid4() if identity is None else uuid.uuid5(_NAMESPACE, identity)
        # Of two such commands at once the later one wins, as of two attempts.
        self.store_id = str(owner)
        self.key = CheckpointKey(str(owner), self.run_id, int(self._clock.now().timestamp() * 1000))

    def now(self) -> datetime:
        """See `JobContext`."""
        return self._clock.now()

    def database(self, name: str) -> Database:
        """See `JobContext`."""
        return self._databases[name]

    def database_names(self) -> tuple[str, ...]:
        """See `JobContext`."""
        return tuple(self._databases)

    def reading(self, database: Database) -> AbstractContextManager[Any]:
        """See `JobContext`."""
        return database.reading()

    def writing(self, database: Database) -> AbstractContextManager[Any]:
        """See `JobContext`."""
        return database.writing()

    def checkpoint(self, database: Database) -> JsonObject | None:
        """See `JobContext`."""
        return checkpoints.take_over(database, self.key)

    def save_checkpoint(self, connection: Any, database: Database, state: JsonObject) -> None:
        """See `JobContext`."""
        checkpoints.save(connection, database, self.key, state)

    def keep_rejects(self, connection: Any, database: Database, rejects: Sequence[Reject], *, before: int) -> None:
        """See `JobContext`."""
        keep(connection, database, self.key, rejects, before=before)

    def watermark(self, database: Database) -> JsonObject | None:  # noqa: ARG002
        """See `JobContext`: a command has no last run."""
        return None

    def save_watermark(self, connection: Any, database: Database, state: JsonObject) -> None:
        """See `JobContext`: nor a next one."""

    def locked_checkpoint(self, connection: Any, database: Database) -> JsonObject | None:  # noqa: ARG002
        """See `JobContext`."""
        return checkpoints.locked(connection, self.key)

    def batches(self, database: Database, **wanted: Any) -> AbstractContextManager[Iterator[Batch]]:  # noqa: ARG002
        """Refuse: no command of its own walks through rows."""
        self.recorded()
        raise AssertionError

    def children(
        self,
        *,
        on_complete: NewRun | None = None,  # noqa: ARG002
        on_success: NewRun | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[Children]:
        """Refuse: the children would belong to a run of the daemon's."""
        self.recorded()
        raise AssertionError

    def recorded(self) -> JsonObject | None:
        """Refuse: what is recorded in the store belongs to a run of the daemon's."""
        raise JobError(f"{self.job} needs batchd's store, which a command of its own does not use", retryable=False)

    def record(self, state: JsonObject) -> None:  # noqa: ARG002 (see `recorded`)
        """Refuse."""
        self.recorded()

    def digest(self, since: datetime, until: datetime) -> Digest:  # noqa: ARG002 (see `recorded`)
        """Refuse."""
        self.recorded()
        raise AssertionError

    def enqueue(self, *runs: NewRun) -> tuple[int, ...]:  # noqa: ARG002 (see `recorded`)
        """Refuse."""
        self.recorded()
        raise AssertionError

    def when_cancelled(self, stop: Callable[[StopReason], None]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Never call it: Ctrl-C raises by itself."""
        return contextlib.nullcontext()

    def handover(self) -> Handover:
        """Refuse."""
        self.recorded()
        raise AssertionError

    def progress(self, done: int, total: int | None = None, note: str | None = None) -> None:
        """See `JobContext`."""
        self._on_progress(done, total, note)

    def raise_if_stopping(self) -> None:
        """Do nothing: Ctrl-C raises by itself."""

    def wait(self, pause: timedelta) -> None:
        """Sleep."""
        threading.Event().wait(max(0.0, pause.total_seconds()))

    def time_left(self) -> timedelta | None:
        """Return None: nobody limits a command but the one who typed it."""
        return None


def record(
    config: Config, kind: Kind[Any], database: Database, context: DirectContext, ended: ended_runs.EndedRun
) -> int | None:
    """Write the run into the ledger, where there is one, and return its id; its rejects are then the run's own."""
    with contextlib.closing(Database(config.store)) as store:
        try:
            if not has_tables(store):
                return None
            check_version(store)
            run_id = ended_runs.record(store, kind.name, ended)
            rejects.hand_over(database, context.key, store_id(store), run_id)
        except BatchdError as error:
            say(f"the run is not in the ledger: {error.message}", color="yellow")
            return None
    return run_id


def kept_rejects(database: Database, context: DirectContext, limit: int) -> tuple[RejectView, ...]:
    """Return the first records that the job could not take."""
    return rejects.of_run(database, context.key.store_id, context.run_id, limit=limit)


def validated(kind: Kind[Any], wanted: JsonObject) -> Any:
    """Return the kind's params; raises UsageError with all that is wrong with them."""
    try:
        return kind.params.model_validate(wanted)
    except ValidationError as error:
        said = faults_text(error, kind.params.model_fields)
        raise UsageError(said, hint=f"`batchd kinds {kind.name}` explains them") from None


@contextlib.contextmanager
def as_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt for an error that has one at its bottom: in a statement, drivers make their own of it."""
    try:
        yield
    except Exception as error:
        if has_beneath(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise


def described(error: BaseException) -> str:
    """Return the error as the ledger has it."""
    if isinstance(error, JobError) and error.hint:
        return f"{error.message} ({error.hint})"
    return error.message if isinstance(error, BatchdError) else str(error) or type(error).__name__
