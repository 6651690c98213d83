"""Removes what runs left in the databases of the jobs and nobody needs any more: checkpoints and rejected records.

A run that succeeded needs its checkpoint no more. One that failed or was cancelled keeps it as long as its row is kept,
so that `batchd retry` goes on where the run stopped. Rejected records go when retention has removed their run. What a
crash left behind is found by looking through the tables.
A database that does not answer waits for its turn, and holds nothing else up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.db.run_staging import leftovers
from batchd.db.staging import drop_staging
from batchd.errors import DatabaseUnavailable, LockTimeout, StatementCancelled
from batchd.loop import Loop
from batchd.store import checkpoints, rejects, results
from batchd.store.checkpoints import CheckpointKey

_SWEEP_EVERY = timedelta(hours=1)
_TRY_AGAIN = timedelta(minutes=1)
_LOOK_AGAIN = timedelta(seconds=1)
_CHUNK = 500
_MOST_WAITING = 10_000


class Sweeper(Loop):
    """One for each database, since one that hangs would keep the others from being swept."""

    def __init__(self, database: Database, store: Database, store_id: str, clock: Clock) -> None:
        super().__init__(f"sweeper-{database.name}", clock)
        self._database = database
        self._store = store
        self._store_id = store_id
        self._lock = threading.Lock()
        self._done_with: dict[int, CheckpointKey] = {}
        self._sweep_at: float | None = None
        self._is_unused: Callable[[], bool] | None = None

    def retire(self, is_unused: Callable[[], bool]) -> None:
        """Close the database, and end, as soon as nobody uses it any more: it has left the config. Any thread."""
        self._is_unused = is_unused
        self.wake()

    def forget(self, key: CheckpointKey) -> None:
        """Remove the checkpoint of a run that succeeded, some time soon. Any thread may call it."""
        with self._lock:
            if len(self._done_with) < _MOST_WAITING:  # the next sweep finds the others
                self._done_with[key.run_id] = key
        self.wake()

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Remove what was handed in; now and then look for what was left behind."""
        with self._lock:
            keys = list(self._done_with.values())
        try:
            for key in keys:
                checkpoints.forget(self._database, key)
                with self._lock:
                    self._done_with.pop(key.run_id, None)
            if self._is_unused is not None:
                return self._close_if_unused(self._is_unused)
            return self._sweep_if_due()
        except (DatabaseUnavailable, LockTimeout, StatementCancelled):
            if self._is_unused is not None:  # what is left behind is found should the database come back
                return self._close_if_unused(self._is_unused)
            return _TRY_AGAIN  # others tell that the database is away; nothing is urgent here

    def _close_if_unused(self, is_unused: Callable[[], bool]) -> timedelta:
        if is_unused():
            self._database.close()
            self._log.info("database.closed", database=self._database.name)
            self.request_stop()
        return _LOOK_AGAIN

    def _sweep_if_due(self) -> timedelta:
        monotonic = self._clock.monotonic()
        if self._sweep_at is None:
            # Not at once: a daemon that starts has better things to do.
            self._sweep_at = monotonic + _SWEEP_EVERY.total_seconds() / 60
        if monotonic >= self._sweep_at:
            self.sweep()
            self._sweep_at = monotonic + _SWEEP_EVERY.total_seconds()
        return timedelta(seconds=max(0.0, self._sweep_at - monotonic))

    def sweep(self) -> int:
        """Remove this store's checkpoints of runs that succeeded or are gone, and rejects of runs that are gone.

        Staging tables of runs that nobody resumes go as well. Return how many checkpoints went.
        """
        while not self.is_stopping and rejects.prune(self._database, self._store, self._store_id):
            pass
        self._drop_leftovers()
        if not checkpoints.has_table(self._database):
            return 0
        removed, last = 0, 0
        while not self.is_stopping:
            page = checkpoints.page(self._database, self._store_id, after=last, limit=_CHUNK)
            if not page:
                break
            last = max(page)
            needed = results.resumable(self._store, page.keys())
            doomed = [CheckpointKey(self._store_id, run_id, page[run_id]) for run_id in page.keys() - needed]
            for key in doomed:
                checkpoints.forget(self._database, key)
            removed += len(doomed)
        return removed

    def _drop_leftovers(self) -> None:
        with self._database.reading() as connection:
            tables = leftovers(connection, self._store_id)
        needed = results.resumable(self._store, tables.keys()) if tables else frozenset()
        for run_id in tables.keys() - needed:
            with self._database.writing() as connection:
                for name in tables[run_id]:
                    drop_staging(connection, name)
