"""Batches: runs that are queued together, and what is queued once all of them are final.

A batch is itself a row of the ledger, of kind `batch`, whose children its runs are, as those of a fan-out are; so
`batchd show BATCH` counts them and `batchd runs --parent BATCH` lists them. Nobody executes the row: it has
succeeded when the runs are queued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.store import fan_outs
from batchd.store.enqueue import NewRun, enqueue_in
from batchd.store.schema import runs

BATCH_KIND = "batch"


@dataclass(frozen=True, slots=True)
class QueuedBatch:
    """The batch's own id, and those of its runs in the order in which they were given."""

    id: int
    runs: tuple[int, ...]


def enqueue_batch(
    store: Database,
    wanted: Sequence[NewRun],
    *,
    created_by: CreatedBy,
    name: str | None = None,
    on_complete: NewRun | None = None,
    on_success: NewRun | None = None,
) -> QueuedBatch:
    """Queue the runs as one batch in one transaction; see `enqueue_batch_in`."""
    with store.writing() as connection:
        return enqueue_batch_in(
            connection,
            store,
            wanted,
            created_by=created_by,
            name=name,
            on_complete=on_complete,
            on_success=on_success,
        )


def enqueue_batch_in(
    connection: Connection,
    store: Database,
    wanted: Sequence[NewRun],
    *,
    created_by: CreatedBy,
    name: str | None = None,
    on_complete: NewRun | None = None,
    on_success: NewRun | None = None,
) -> QueuedBatch:
    """Queue the runs as one batch in the caller's transaction.

    Once all of them are final `on_complete` is queued, once, and `on_success` when all of them succeeded: with places
    `{run_id}` (the batch), `{children}`, `{succeeded}`, `{failed}`, … in their params. A run without a `key` has its
    number in the batch as one; of runs with the same key, or with a `unique_key` that an unfinished run has, only
    the first is queued. Raises JobError for a job that the store does not know.
    """
    now = store.dialect.now()
    batch_id: int = connection.execute(
        runs.insert()
        .values(
            kind=BATCH_KIND,
            queue=BATCH_KIND,
            priority=0,
            params={} if name is None else {"name": name},
            available_at=now,
            created_at=now,
            finished_at=now,
            retry={},
            state=RunState.SUCCEEDED.value,
            max_attempts=1,
            result={"queued": len(wanted)},
            created_by=created_by.value,
        )
        .returning(runs.c.id)
    ).scalar_one()
    fan_outs.begin_in(connection, store, batch_id, on_complete, on_success)
    keyed = [run if run.key is not None else replace(run, key=str(number)) for number, run in enumerate(wanted)]
    ids = enqueue_in(connection, store, keyed, created_by=created_by, parent_id=batch_id)
    fan_outs.close_in(connection, store, batch_id)
    return QueuedBatch(batch_id, ids)
