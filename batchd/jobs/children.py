"""The runs that a run queues: `JobContext.children` and `JobContext.enqueue`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.errors import JobError
from batchd.store import fan_outs
from batchd.store.enqueue import NewRun, enqueue_in


class StoredChildren:
    """See `batchd.jobs.contract.Children`."""

    def __init__(self, store: Database, run_id: int) -> None:
        self.database = store
        self._run_id = run_id

    def add(self, runs: Sequence[NewRun], connection: Connection | None = None) -> int:
        """See `batchd.jobs.contract.Children`."""
        keys = [run.key for run in runs]
        if None in keys or len(set(keys)) < len(keys):
            raise JobError(
                "each run that a run queues needs a `key` of its own among them",
                hint="it is what keeps a run from being queued twice: the key of the row that it is for",
                retryable=False,
            )
        if connection is not None:
            return self._add(connection, runs)
        with self.database.writing() as own:
            return self._add(own, runs)

    def _add(self, connection: Connection, runs: Sequence[NewRun]) -> int:
        added = enqueue_in(connection, self.database, runs, created_by=CreatedBy.JOB, parent_id=self._run_id)
        return len(added)


@contextlib.contextmanager
def stored_children(
    store: Database, run_id: int, on_complete: NewRun | None, on_success: NewRun | None = None
) -> Iterator[StoredChildren]:
    """Yield the children of a run; the end of the block, unless it raises, says that there will be no more."""
    fan_outs.begin(store, run_id, on_complete, on_success)
    yield StoredChildren(store, run_id)
    fan_outs.close(store, run_id)


def enqueue_for(store: Database, run_id: int, wanted: Sequence[NewRun]) -> tuple[int, ...]:
    """Queue runs for a run, in one transaction; one with a key is its child, and so there once. Return the new ids."""
    with store.writing() as connection:
        ids: list[int] = []
        for parent, runs in (
            (run_id, [run for run in wanted if run.key]),
            (None, [run for run in wanted if not run.key]),
        ):
            ids += enqueue_in(connection, store, runs, created_by=CreatedBy.JOB, parent_id=parent)
        return tuple(sorted(ids))
