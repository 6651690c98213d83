"""Records that a job could not take, in the database that the job changes, committed with the chunk they came with.

Of one run the first `MOST_KEPT` are kept and the others only counted, by the job's own result: a file of the wrong
format must not fill the database. They hold what the source held, so they go when retention removes their run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, inspect, select, update

from batchd.db.engine import Database
from batchd.domain.job import JsonValue
from batchd.store.checkpoints import CheckpointKey
from batchd.store.job_schema import checkpoint_metadata, rejects
from batchd.store.schema import runs

MOST_KEPT = 1_000
"""Records kept of one run."""

_LONGEST_TEXT = 2_000
_MOST_FIELDS = 100
_RUNS_ASKED_FOR = 500
_RUNS_REMOVED = 50


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that a job could not take.

    `source` is where it came from (a file, a URL), `position` its line or its number there, `key` what identifies it
    where that is known, `record` the record itself as JSON; long texts in it are cut.
    """

    source: str
    position: int
    reason: str
    key: str | None = None
    record: JsonValue = None


@dataclass(frozen=True, slots=True)
class RejectView:
    """A kept reject; `number` counts them within the run, from 1."""

    number: int
    source: str
    position: int
    key: str | None
    reason: str
    record: JsonValue
    at: datetime


def keep(
    connection: Connection, database: Database, key: CheckpointKey, found: Sequence[Reject], *, before: int
) -> None:
    """Keep the rejects in the chunk's own transaction; `before` says how many the run had before this chunk.

    Makes the table where it does not exist yet. Save the checkpoint in the same transaction: it holds the count.
    """
    room = MOST_KEPT - before
    if room <= 0 or not found:
        return
    _ensure_table(connection, database)
    connection.execute(
        # What an attempt kept of a chunk that did not commit; see `before`.
        delete(rejects).where(
            rejects.c.store_id == key.store_id, rejects.c.run_id == key.run_id, rejects.c.number > before
        )
    )
    connection.execute(
        rejects.insert().values(at=database.dialect.now()),
        [
            {
                "store_id": key.store_id,
                "run_id": key.run_id,
                "number": before + place,
                "fence": key.fence,
                "source": _short(reject.source),
                "position": reject.position,
                "key": None if reject.key is None else _short(reject.key),
                "reason": _short(reject.reason),
                "record": _bounded(reject.record),
            }
            for place, reject in enumerate(found[:room], start=1)
        ],
    )


def of_run(database: Database, store: str, run_id: int, *, limit: int = MOST_KEPT) -> tuple[RejectView, ...]:
    """Return the run's first rejects in their order; none where there is no such table."""
    columns = [rejects.c[name] for name in RejectView.__slots__]
    with database.reading() as connection:
        if not inspect(connection).has_table(rejects.name):
            return ()
        rows = connection.execute(
            select(*columns)
            .where(rejects.c.store_id == store, rejects.c.run_id == run_id)
            .order_by(rejects.c.number)
            .limit(limit)
        )
        return tuple(RejectView(**row) for row in rows.mappings())


def hand_over(database: Database, key: CheckpointKey, store: str, run_id: int) -> None:
    """Make the rejects that were kept under the key those of a run of the store."""
    with database.writing() as connection:
        if inspect(connection).has_table(rejects.name):
            connection.execute(
                update(rejects)
                .where(rejects.c.store_id == key.store_id, rejects.c.run_id == key.run_id)
                .values(store_id=store, run_id=run_id)
            )


def forget(database: Database, key: CheckpointKey) -> None:
    """Remove what was kept under the key."""
    with database.writing() as connection:
        if inspect(connection).has_table(rejects.name):
            connection.execute(
                delete(rejects).where(rejects.c.store_id == key.store_id, rejects.c.run_id == key.run_id)
            )


def prune(database: Database, store: Database, mine: str) -> int:
    """Remove the rejects of runs that the store `mine` no longer has, those of some runs a call; return how many.

    Call it until it returns 0. Rejects of other stores' runs in the same database are left alone.
    """
    with database.reading() as connection:
        if not inspect(connection).has_table(rejects.name):
            return 0
        listed = connection.scalars(
            select(rejects.c.run_id).where(rejects.c.store_id == mine).distinct().order_by(rejects.c.run_id)
        ).all()
    gone: list[int] = []
    with store.reading() as connection:
        for start in range(0, len(listed), _RUNS_ASKED_FOR):
            part = listed[start : start + _RUNS_ASKED_FOR]
            known = set(connection.scalars(select(runs.c.id).where(runs.c.id.in_(part))))
            gone += [run_id for run_id in part if run_id not in known]
    if not gone:
        return 0
    with database.writing() as connection:
        mine_and_gone = (rejects.c.store_id == mine, rejects.c.run_id.in_(gone[:_RUNS_REMOVED]))
        return connection.execute(delete(rejects).where(*mine_and_gone)).rowcount


def _ensure_table(connection: Connection, database: Database) -> None:
    if not inspect(connection).has_table(rejects.name):
        database.dialect.lock_for_transaction(connection, rejects.name)
        checkpoint_metadata.create_all(connection)


def _bounded(value: JsonValue) -> JsonValue:
    match value:
        case str():
            return _short(value)
        case list():
            return [_bounded(inner) for inner in value[:_MOST_FIELDS]]
        case dict():
            return {_short(name): _bounded(inner) for name, inner in list(value.items())[:_MOST_FIELDS]}
    return value


def _short(text: str) -> str:
    """Return the text without what PostgreSQL's JSON does not store, and not longer than is useful to look at."""
    storable = text[: _LONGEST_TEXT + 1].replace("\x00", "�").encode(errors="replace").decode()
    return storable if len(storable) <= _LONGEST_TEXT else storable[: _LONGEST_TEXT - 1] + "…"
