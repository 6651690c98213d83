"""The synchronous client."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack

from batchd.clock import SystemClock
from batchd.db.callers import as_connection, fetch_one, is_async, is_psycopg, naming_what_is_missing, one_statement
from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.domain.run_request import Options, RunRequest
from batchd.errors import UsageError
from batchd.store import control, queries
from batchd.store.batches import QueuedBatch
from batchd.store.control import Cancelled, RunUnknown
from batchd.store.queries import RunView
from batchd.store.requests import CALL, answers_of, document_of, enqueue_batch_of, enqueue_requests
from batchd.store.unique_runs import Enqueued

RunOrId: TypeAlias = Enqueued | RunView | int
"""What tells a run: what `enqueue` returned, the run itself, or its id."""

PSYCOPG_CALL = CALL.format("%s", "%s")

_AT_ONCE = 10_000
_FIRST_LOOK = timedelta(milliseconds=20)
_LONGEST_PAUSE = timedelta(milliseconds=500)


class Client:
    """Queues runs, and says what became of them. Any thread may call any method; connects when it is first needed.

    `url` is the store's: `postgresql://…` or `sqlite:///file.db`. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        connect_timeout: timedelta = timedelta(seconds=10),
        statement_timeout: timedelta | None = timedelta(minutes=1),
        lock_timeout: timedelta | None = timedelta(seconds=10),
    ) -> None:
        if url.startswith("postgres://"):  # as hosting platforms hand it out
            url = "postgresql" + url.removeprefix("postgres")
        settings = DatabaseSettings(
            name="store",
            url=url,
            pool_size=pool_size,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
            must_exist=True,
            is_store=True,
        )
        self._database = Database(settings)
        self._process = os.getpid()

    def enqueue(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        /,
        *,
        connection: Any = None,
        **options: Unpack[Options],
    ) -> Enqueued:
        """Queue a run of a job, or of a kind, and return its id; see `RunRequest` for the options.

        With a `connection` (of SQLAlchemy or psycopg, or a SQLAlchemy Session) in its transaction: the run is there
        exactly when that commits. Raises EnqueueRefused for a name or a value that cannot be right.
        """
        (enqueued,) = self.enqueue_many([RunRequest(name, params or {}, **options)], connection=connection)
        return enqueued

    def enqueue_many(self, requests: Iterable[RunRequest], *, connection: Any = None) -> tuple[Enqueued, ...]:
        """Queue many runs, all or none of them, and return what became of each, in their order."""
        wanted = list(requests)
        if connection is None:
            return self._enqueue_own(wanted)
        if is_async(connection):
            raise UsageError("the connection is asynchronous", hint="use batchd.AsyncClient, and await it")
        if not wanted:
            return ()
        with naming_what_is_missing():
            if is_psycopg(connection):
                row = fetch_one(connection, PSYCOPG_CALL, (document_of(wanted), CreatedBy.CLIENT.value))
                return answers_of(row, len(wanted))
            return enqueue_requests(as_connection(connection), self._database, wanted)

    def batch(
        self,
        requests: Iterable[RunRequest],
        *,
        name: str | None = None,
        on_complete: RunRequest | None = None,
        on_success: RunRequest | None = None,
        connection: Any = None,
    ) -> QueuedBatch:
        """Queue runs as one batch, all or none of them, and return its id and theirs.

        Once all of them are final, however that came, `on_complete` is queued, and `on_success` if all of them have
        succeeded; their params may hold "{succeeded}", "{failed}", "{children}" and "{run_id}" (the batch's). A run
        whose unique key is taken is no part of the batch. `connection`: as for `enqueue`, but SQLAlchemy's only.
        """
        wanted = list(requests)
        ends: dict[str, Any] = {"name": name, "on_complete": on_complete, "on_success": on_success}
        store = self._store()
        with naming_what_is_missing():
            if connection is None:
                with store.writing() as own:
                    return enqueue_batch_of(own, store, wanted, **ends)
            if is_async(connection):
                raise UsageError("the connection is asynchronous", hint="use batchd.AsyncClient, and await it")
            refuse_psycopg(connection)
            return enqueue_batch_of(as_connection(connection), store, wanted, **ends)

    def run(self, run: RunOrId) -> RunView:
        """Return the run as it is now: its state, result, error, progress; raises RunUnknown when there is none."""
        with naming_what_is_missing():
            found = queries.find_run(self._store(), run_id_of(run))
        if found is None:
            raise RunUnknown(f"there is no run {run_id_of(run)}", hint="old runs are pruned; see [daemon] keep_for")
        return found

    def wait(self, run: RunOrId, timeout: timedelta | float | None = None) -> RunView:
        """Return the run once it has ended, however it did; raises TimeoutError when that takes longer (seconds)."""
        clock = SystemClock()
        pauses = Pauses(clock.monotonic(), timeout)
        pausing = threading.Event()
        while not (found := self.run(run)).is_final:
            pausing.wait(pauses.next(clock.monotonic(), found))
        return found

    def cancel(self, run: RunOrId) -> Cancelled:
        """Cancel a waiting run at once, or ask the daemon to stop a running one. Raises NotPossible if it ended."""
        with naming_what_is_missing():
            return control.request_cancel(self._store(), run_id_of(run))

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enqueue_own(self, wanted: Sequence[RunRequest]) -> tuple[Enqueued, ...]:
        store = self._store()
        if not wanted:
            return ()
        if store.dialect.name == "postgresql" and len(wanted) <= _AT_ONCE:
            with naming_what_is_missing(), one_statement(store) as driver:
                row = fetch_one(driver, PSYCOPG_CALL, (document_of(wanted), CreatedBy.CLIENT.value))
            return answers_of(row, len(wanted))
        enqueued: list[Enqueued] = []
        with naming_what_is_missing(), store.writing() as own:
            for start in range(0, len(wanted), _AT_ONCE):
                enqueued += enqueue_requests(own, store, wanted[start : start + _AT_ONCE], before=start)
        return tuple(enqueued)

    def _store(self) -> Database:
        if self._process != os.getpid():  # forked: the pool's connections belong to the parent
            self._database.engine.dispose(close=False)
            self._process = os.getpid()
        return self._database


class Pauses:
    """How long to wait between two looks at a run: longer and longer, and not beyond the time limit."""

    def __init__(self, began_at: float, timeout: timedelta | float | None) -> None:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        self._deadline = None if seconds is None else began_at + seconds
        self._pause = _FIRST_LOOK.total_seconds()

    def next(self, now: float, run: RunView) -> float:
        """Return the next pause in seconds; raises TimeoutError when there is no time left."""
        left = self._pause if self._deadline is None else self._deadline - now
        if left <= 0:
            raise TimeoutError(f"run {run.id} is still {run.state}; it goes on")
        pause = min(self._pause, left)
        self._pause = min(self._pause * 1.5, _LONGEST_PAUSE.total_seconds())
        return pause


def run_id_of(run: RunOrId) -> int:
    """Return the run's id."""
    return run if isinstance(run, int) else run.id


def refuse_psycopg(connection: Any) -> None:
    """Raise UsageError for a connection of psycopg's own: a batch takes several statements, which batchd makes."""
    if is_psycopg(connection):
        raise UsageError(
            "a batch cannot be queued on a connection of psycopg",
            hint="leave `connection` out, or use one of SQLAlchemy",
        )
