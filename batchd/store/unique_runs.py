"""Runs with a unique key: at most one *unfinished* run has it, decided by a unique index whoever enqueues.

A run that is wanted while there is one of its key comes to nothing:

    the one there is …                       keep     replace
    waits, and has never been claimed        kept     replaced: its params, time and settings become the new ones
    runs, or waits for its next attempt      kept     kept: a checkpoint belongs to the params that it was made with
    succeeded, queued within `period` ago    kept     kept
    ended in any other way                   a new run is queued

A key is one name in the whole store, and `replace` changes only a run of the same job or kind.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Select, and_, select, text, union_all, update

from batchd.db.dialect import Dialect
from batchd.domain.run import RunState
from batchd.errors import LockTimeout
from batchd.store.schema import runs

_MOST_TURNS = 100

_REPLACED = (
    "queue",
    "priority",
    "params",
    "available_at",
    "timeout_seconds",
    "retry",
    "max_attempts",
    "tags",
    "metadata",
    "mutex",
    "limit_key",
)


class OnConflict(enum.StrEnum):
    """What becomes of the run of a unique key that waits already."""

    KEEP = "keep"
    REPLACE = "replace"


class Outcome(enum.StrEnum):
    """What a request to queue a run came to."""

    QUEUED = "queued"
    KEPT = "kept"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A run that is there now: `queued` by this request, or one of its unique key that was `kept` or `replaced`."""

    id: int
    outcome: Outcome

    @property
    def is_new(self) -> bool:
        """Whether this request queued it."""
        return self.outcome is Outcome.QUEUED


@dataclass(frozen=True, slots=True)
class UniqueRow:
    """A row to insert unless there is a run of its key; `place` is what it goes by in the answer."""

    place: int
    key: str
    period: timedelta | None
    on_conflict: OnConflict
    row: Mapping[str, Any]


def add_unique(connection: Connection, dialect: Dialect, wanted: Sequence[UniqueRow]) -> dict[int, Enqueued]:
    """Queue the runs in the caller's transaction and return by `place` what became of each.

    In the order of their keys, so that two transactions do not wait for each other in a circle.
    """
    dialect.lock_unique_keys(connection, sorted({each.key for each in wanted if each.period is not None}))
    in_order = sorted(wanted, key=lambda each: (each.key, each.place))
    return {each.place: _add(connection, dialect, each) for each in in_order}


def _add(connection: Connection, dialect: Dialect, wanted: UniqueRow) -> Enqueued:
    for _ in range(_MOST_TURNS):
        child = _child(connection, wanted.row)
        if child is not None:
            return Enqueued(child, Outcome.KEPT)
        found = _find(connection, dialect, wanted)
        if found is not None:
            replaced = wanted.on_conflict is OnConflict.REPLACE and _replace(connection, found, wanted.row)
            return Enqueued(found, Outcome.REPLACED if replaced else Outcome.KEPT)
        inserted = connection.execute(
            dialect.insert(runs)
            .values(dict(wanted.row))
            .on_conflict_do_nothing()  # of the unique key, or of the parent's key
            .returning(runs.c.id)
        ).scalar_one_or_none()
        if inserted is not None:
            return Enqueued(inserted, Outcome.QUEUED)
    raise LockTimeout(f"runs of the unique key {wanted.key!r} come and go too fast")


def _child(connection: Connection, row: Mapping[str, Any]) -> int | None:
    """Return the run that the parent queued with this key already, whatever became of it."""
    if row["child_key"] is None:
        return None
    of_parent = (runs.c.parent_id == row["parent_id"], runs.c.child_key == row["child_key"])
    return connection.execute(select(runs.c.id).where(*of_parent)).scalar_one_or_none()


def _find(connection: Connection, dialect: Dialect, wanted: UniqueRow) -> int | None:
    """Return the run that stands in the way.

    One statement: a run that is just succeeding is then seen as unfinished or as succeeded, never as neither. Its
    states are spelt out, so that each half is answered from its partial index.
    """
    of_key = select(runs.c.id).where(runs.c.unique_key == wanted.key)
    statement: Select[Any] | CompoundSelect[Any] = of_key.where(text("state IN ('queued', 'running')"))
    if wanted.period is not None:
        since = dialect.now_plus(-wanted.period.total_seconds())
        statement = union_all(statement, of_key.where(text("state = 'succeeded'"), runs.c.created_at > since))
    return connection.execute(statement).scalars().first()


def _replace(connection: Connection, run_id: int, row: Mapping[str, Any]) -> bool:
    same = and_(runs.c.kind == row["kind"], runs.c.schedule_id.is_not_distinct_from(row["schedule_id"]))
    has_not_begun = and_(runs.c.state == RunState.QUEUED.value, runs.c.fence == 0)
    changed = connection.execute(
        update(runs)
        .where(runs.c.id == run_id, has_not_begun, same)
        .values({name: row[name] for name in _REPLACED} | {"waits_for": None})
    )
    return changed.rowcount == 1
