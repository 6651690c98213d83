"""Batches: runs that are queued together, and what is queued once all of them are final.

A batch is itself a row of the ledger, of kind `batch`, whose children its runs are, as those of a fan-out are; so
`batchd show BATCH` counts them and `batchd runs --parent BATCH` lists them. Nobody executes the row: it has
succeeded when the runs are queued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Text, cast, update

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.store import fan_outs
from batchd.store.enqueue import NewRun
from batchd.store.schema import runs

BATCH_KIND = "batch"

_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class QueuedBatch:
    """The batch's own id, and those of its runs in the order in which they were given."""

    id: int
    runs: tuple[int, ...]


def group_in(
    connection: Connection,
    store: Database,
    run_ids: Sequence[int],
    *,
    created_by: CreatedBy,
    name: str | None = None,
    on_complete: NewRun | None = None,
    on_success: NewRun | None = None,
) -> QueuedBatch:
    """Make a batch of runs that the caller has queued in this very transaction, by whatever way.

    Once all of them are final `on_complete` is queued, once, and `on_success` when all of them succeeded: with places
    `{run_id}` (the batch), `{children}`, `{succeeded}`, `{failed}`, … in their params. A run that belongs to another
    batch or run stays there, and is not among the runs that are returned.
    """
    batch_id = _begin(connection, store, len(run_ids), created_by, name)
    fan_outs.begin_in(connection, store, batch_id, on_complete, on_success)
    taken: set[int] = set()
    for start in range(0, len(run_ids), _CHUNK):
        taken |= set(
            connection.execute(
                update(runs)
                .where(runs.c.id.in_(run_ids[start : start + _CHUNK]), runs.c.parent_id.is_(None))
                .values(parent_id=batch_id, child_key=cast(runs.c.id, Text))
                .returning(runs.c.id)
            ).scalars()
        )
    fan_outs.close_in(connection, store, batch_id)
    return QueuedBatch(batch_id, tuple(run_id for run_id in run_ids if run_id in taken))


def _begin(connection: Connection, store: Database, count: int, created_by: CreatedBy, name: str | None) -> int:
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
            result={"queued": count},
            created_by=created_by.value,
        )
        .returning(runs.c.id)
    ).scalar_one()
    return batch_id
