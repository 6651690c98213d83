"""Walking over rows in batches, each of which commits with its checkpoint.

What `each_row`, `fan_out` and `JobContext.batches` have in common.

The checkpoint lies where the effect does, in `home`: the walked database itself, or another one (the store, for runs
that are queued). With a transaction, rows are handled inside the one that saves the checkpoint, so that both happen or
neither. Without one (a job that calls an API), the checkpoint is saved after the batch, which may so be repeated.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from batchd.db.engine import Database
from batchd.db.keys import Key, read_key, stored_key
from batchd.db.row_source import Row, RowSource, RowsWanted, find_rows
from batchd.domain.job import JsonObject, JsonValue
from batchd.domain.walk import Gap, Span, StoredKey, WalkState, walk_state
from batchd.errors import JobError
from batchd.jobs.batch import Batch, WalkResult
from batchd.jobs.contract import JobContext

REJECTED = "rejected"
"""The count of the rows that were rejected."""

_WALKS = "walks"


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """`size` rows a batch; `transaction`: rows are handled inside the one that saves the checkpoint.

    `lock`: rows are locked for an update when they are read. `name` tells several walks of one run apart.
    """

    name: str
    size: int
    transaction: bool = True
    lock: bool = False


class RowWalk:
    """One attempt's walk. `begin` and `spans` are for the attempt's thread, `batch` for any number of threads."""

    def __init__(
        self, context: JobContext, database: Database, home: Database, source: RowSource, options: WalkOptions
    ) -> None:
        self._context = context
        self._database = database
        self._home = home
        self._source = source
        self._options = options
        self._lock = threading.Lock()
        self._estimate: int | None = None
        self._state: WalkState | None = None
        self._counts: JsonObject = {}

    @property
    def result(self) -> WalkResult:
        """How far the walk is. Any thread may ask."""
        with self._lock:
            state = self._state
            return WalkResult(state.rows, state.batches, dict(self._counts)) if state else WalkResult(0, 0, {})

    def begin(self, *, dry_run: bool = False) -> None:
        """Go on from the checkpoint, or fix where the walk ends and save that; a dry run saves nothing."""
        stored = None if dry_run else self._stored_walk(self._context.checkpoint(self._home))
        if stored is not None:
            if stored["key"] != list(self._source.key_names):
                raise JobError(
                    f"the run began by the key {stored['key']}, and the job now goes by {list(self._source.key_names)}",
                    hint="trigger a new run",
                    retryable=False,
                )
            self._take(stored)
            return
        with self._context.reading(self._database) as connection:
            last = self._source.last_key(connection)
            if self._source.has_null_keys(connection):
                raise JobError(
                    f"{self._source.name} has rows in which {' or '.join(self._source.key_names)} is NULL",
                    hint="no order reaches them: choose another `key`, or leave them out with a condition",
                    retryable=False,
                )
            self._estimate = self._source.estimate(connection)
        if last is None:
            return
        self._state = WalkState(stored_key(last))
        if not dry_run:
            with self._context.writing(self._home) as connection:
                self._save(connection, self._context.locked_checkpoint(connection, self._home), self._state, {})

    def spans(self) -> Iterator[Span]:
        """Yield what is left to do, one batch after the other, reading ahead no further than asked."""
        self._report()
        for gap in self._state.gaps() if self._state else ():
            yield from self._within(gap)

    def finish(self) -> WalkResult:
        """Say that all is done, and return what it came to."""
        result = self.result
        self._context.progress(result.rows, result.rows)
        return result

    @contextlib.contextmanager
    def batch(self, span: Span) -> Iterator[Batch]:
        """Yield the rows of the span; after the block the batch counts as done, unless it raised."""
        if self._options.transaction and self._home is self._database:
            with self._context.writing(self._home) as connection:
                batch = Batch(self._rows(connection, span), connection)
                yield batch
                state, counts = self._save_done(connection, span, batch)
        else:
            with self._context.reading(self._database) as connection:
                found = self._rows(connection, span)
            batch = Batch(found, None)
            if not self._options.transaction:
                yield batch
            with self._context.writing(self._home) as connection:
                if self._options.transaction:
                    batch.open_connection = connection
                    yield batch
                state, counts = self._save_done(connection, span, batch)
        self._advance(state, counts)

    def count(self, span: Span) -> None:
        """Count a span's rows as done without doing anything: a dry run."""
        with self._context.reading(self._database) as connection:
            found = len(self._rows(connection, span))
        assert self._state is not None
        self._advance(self._state.with_done(span, found), {})

    def _within(self, gap: Gap) -> Iterator[Span]:
        after: StoredKey | None = gap.after
        number = 1
        while True:
            with self._context.reading(self._database) as connection:
                boundary = self._source.next_boundary(connection, _key(after), read_key(gap.up_to), self._options.size)
            up_to = gap.up_to if boundary is None else stored_key(boundary)
            yield Span(gap.order(number), after, up_to)
            if boundary is None:
                return
            after = up_to
            number += 1

    def _rows(self, connection: Connection, span: Span) -> list[Row]:
        return self._source.rows(connection, _key(span.after), read_key(span.up_to), lock=self._options.lock)

    def _save_done(self, connection: Connection, span: Span, batch: Batch) -> tuple[WalkState, JsonObject]:
        """Add the batch to what is saved: other threads may have saved since this one began."""
        saved = self._context.locked_checkpoint(connection, self._home)
        stored = self._stored_walk(saved)
        assert stored is not None
        state = walk_state(_object(stored["state"])).with_done(span, len(batch.found))
        counts = _object(stored["counts"])
        if batch.rejects:
            # Under the lock, so that the numbers of two threads' rejects do not meet.
            before = int(_number(counts.get(REJECTED, 0)))
            self._context.keep_rejects(connection, self._home, batch.rejects, before=before)
            counts = _added(counts, {REJECTED: len(batch.rejects)})
        counts = _added(counts, batch.counts)
        self._save(connection, saved, state, counts)
        return state, counts

    def _save(self, connection: Connection, saved: JsonObject | None, state: WalkState, counts: JsonObject) -> None:
        whole = saved or {}
        walk: JsonObject = {
            "key": list(self._source.key_names),
            "estimate": self._estimate,
            "state": state.as_json(),
            "counts": counts,
        }
        walks = {**_object(whole.get(_WALKS, {})), self._options.name: walk}
        self._context.save_checkpoint(connection, self._home, {**whole, _WALKS: walks})

    def _stored_walk(self, saved: JsonObject | None) -> JsonObject | None:
        walk = _object((saved or {}).get(_WALKS, {})).get(self._options.name)
        return None if walk is None else _object(walk)

    def _take(self, stored: JsonObject) -> None:
        estimate = stored["estimate"]
        assert estimate is None or isinstance(estimate, int)
        self._estimate = estimate
        self._state = walk_state(_object(stored["state"]))
        self._counts = _object(stored["counts"])

    def _advance(self, state: WalkState, counts: JsonObject) -> None:
        """Remember the newest state; of two threads the one that committed first may come second here."""
        with self._lock:
            if self._state is None or state.batches >= self._state.batches:
                self._state, self._counts = state, counts
                self._report()

    def _report(self) -> None:
        done = self._state.rows if self._state else 0
        self._context.progress(done, None if self._estimate is None else max(self._estimate, done))


@contextlib.contextmanager
def batches(
    context: JobContext, database: Database, home: Database, wanted: RowsWanted, options: WalkOptions
) -> Iterator[Iterator[Batch]]:
    """Yield the batches of a walk, each of which commits when the next one is asked for: `JobContext.batches`."""
    with context.reading(database) as connection:
        source = find_rows(connection, wanted)
    walk = RowWalk(context, database, home, source, options)
    walk.begin()
    found = _each_batch(context, walk)
    try:
        yield found
    except BaseException as error:
        # Through the open transaction, so that it rolls back and a driver's error is told in batchd's words.
        found.throw(error)
        raise
    finally:
        found.close()


def _each_batch(context: JobContext, walk: RowWalk) -> Generator[Batch, None, None]:
    for span in walk.spans():
        context.raise_if_stopping()
        with walk.batch(span) as batch:
            if batch.found:
                yield batch
    walk.finish()


def _key(stored: StoredKey | None) -> Key | None:
    return None if stored is None else read_key(stored)


def _added(counts: JsonObject, more: dict[str, int | float]) -> JsonObject:
    added = dict(counts)
    for name, by in more.items():
        added[name] = _number(added.get(name, 0)) + by
    return added


def _number(value: JsonValue) -> int | float:
    assert isinstance(value, int | float)
    return value


def _object(value: JsonValue) -> JsonObject:
    assert isinstance(value, dict)
    return value
