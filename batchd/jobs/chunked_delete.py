"""Deleting many rows in chunks: what a run of `cleanup` does.

One chunk: find its window (reading), then in one short transaction delete it, save the checkpoint, and write and sync
the archive, and commit. Only the last commit waits for the disk, unless there is an archive, which must not be ahead of
a table that a crash of the server took back by some chunks.

A chunk whose window was guessed is rolled back, and the window looked up, when it has too many rows or takes too long.
A chunk that meets a lock is tried again, smaller; everything else that goes wrong ends the attempt, and the next one
goes on from the checkpoint. The cutoff is fixed by the first attempt, so that all attempts of a run mean the same rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select
from sqlalchemy.exc import DBAPIError

from batchd.clock import SystemClock
from batchd.db.bulk import Walk, Window
from batchd.db.chunk_size import ChunkSize
from batchd.db.dialect import Failure
from batchd.db.engine import Database
from batchd.db.foreign_keys import blocking_reference
from batchd.db.time_column import TimeFormat
from batchd.domain.job import JsonObject
from batchd.errors import JobError, LockTimeout, StatementCancelled
from batchd.jobs.archive import Archive, open_archive
from batchd.jobs.chunk_windows import ChunkWindows
from batchd.jobs.contract import JobContext
from batchd.jobs.delete_plan import DeletePlan, plan_delete

_FIRST_CHUNK = 500
_SMALLEST_CHUNK = 50
_LOCK_TRIES = 6
_FIRST_LOCK_PAUSE = timedelta(milliseconds=100)
_LONGEST_AUTOMATIC_PAUSE = timedelta(seconds=1)
_PAUSE_RATIO = {"postgresql": 0.02, "sqlite": 1.0}
_LARGEST_CHUNK = {"postgresql": 1_000_000, "sqlite": 5_000}
"""On SQLite every other writer waits for the whole chunk, and the commit that fills the WAL pays for its checkpoint."""
_CHUNKS_BETWEEN_THOROUGH_TIDIES = 20
_LONGEST_GUESS = 2
"""In targets: after so long the server ends a chunk whose window was guessed."""


class _TooManyRows(Exception):
    """A guessed window had more rows than a transaction may delete."""


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """What to delete and how; see the parameters of `cleanup` for each."""

    table: str
    column: str
    age: timedelta
    where: str | None
    unit: TimeFormat | None
    zone: ZoneInfo
    batch_size: int
    target: timedelta
    max_rows: int | None
    pause: timedelta | None
    lock_timeout: timedelta
    archive_to: Path | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a run has come: all its attempts together."""

    position: JsonObject
    rows: int = 0
    chunks: int = 0
    longest_ms: float = 0.0
    archive_start: int = 0
    archive_end: int = 0

    def plus(self, window: Window, rows: int) -> Tally:
        """Return the tally after a chunk."""
        return replace(self, position=window.after, rows=self.rows + rows, chunks=self.chunks + 1)


class ChunkedDelete:
    """One attempt. For the attempt's thread."""

    def __init__(self, context: JobContext, database: Database, request: DeleteRequest) -> None:
        self._context = context
        self._database = database
        self._request = request
        self._clock = SystemClock()
        self._size = self._first_size()
        self._took = timedelta(0)

    def run(self) -> JsonObject:
        """Delete until nothing that matches is left, or `max_rows`; return the run's result."""
        saved = None if self._request.dry_run else self._context.checkpoint(self._database)
        cutoff = self._cutoff(saved)
        with self._context.reading(self._database) as connection:
            plan = plan_delete(
                connection,
                table=self._request.table,
                column=self._request.column,
                where=self._request.where,
                unit=self._request.unit,
                zone=self._request.zone,
                cutoff=cutoff,
                resumed=saved,
            )
            tally = _restored(saved) if saved else Tally(plan.walk.start(connection)) if plan.walk else Tally({})
        self._warn_of(plan)
        if plan.walk is not None:
            with self._open_archive(plan) as archive:
                if archive is not None:
                    tally = self._begin_archive(archive, tally, resumed=saved is not None)
                if saved is None and not self._request.dry_run:
                    # Before anything happens: the cutoff and the archive's length are those of the first attempt.
                    self._save(plan, tally)
                tally = self._walk(plan, plan.walk, archive, tally)
            if not self._request.dry_run:
                # This commit waits for the disk, and so for every chunk before it: what is reported as deleted is gone.
                self._save(plan, tally)
        return self._result(plan, tally)

    def _save(self, plan: DeletePlan, tally: Tally) -> None:
        with self._context.writing(self._database) as connection:
            self._context.save_checkpoint(connection, self._database, self._state(plan, tally))

    def _cutoff(self, saved: JsonObject | None) -> datetime:
        if saved is not None:
            return datetime.fromisoformat(str(saved["cutoff"]))
        now = self._context.now()
        return min(self._context.scheduled_for or now, now) - self._request.age

    def _walk(self, plan: DeletePlan, walk: Walk, archive: Archive | None, tally: Tally) -> Tally:
        # Rows that go are all that a window has, and none of them is brought here: only then a guess can be bounded.
        may_guess = self._request.where is None and self._request.max_rows is None and archive is None
        windows = ChunkWindows(walk, may_guess=may_guess and not self._request.dry_run)
        self._report(plan, tally)
        while self._left(tally) > 0:
            self._context.raise_if_stopping()
            after = self._next_chunk(plan, windows, archive, tally)
            if after is None:
                break
            tally = after
            self._report(plan, tally)
            self._yield_to_others(tally)
        return tally

    def _next_chunk(
        self, plan: DeletePlan, windows: ChunkWindows, archive: Archive | None, tally: Tally
    ) -> Tally | None:
        """Return the tally after the next chunk, or None at the end; a chunk that meets a lock is tried again."""
        tries = 0
        while True:
            rows = min(self._size.rows, self._left(tally))
            window = windows.guessed(tally.position, rows)
            if window is None:
                with self._context.reading(self._database) as connection:
                    window = windows.looked_up(connection, tally.position, rows)
            if window is None or not (window.is_divisible or self._request.max_rows is None):
                return None
            started = self._clock.monotonic()
            try:
                done = self._chunk(plan, window, archive, tally)
            except (LockTimeout, StatementCancelled, _TooManyRows) as error:
                if window.is_guess and not isinstance(error, LockTimeout):
                    windows.missed()
                    continue
                tries += 1
                self._size = self._size.halved()
                self._after_lock(plan, tries, error)
                continue
            self._took = timedelta(seconds=self._clock.monotonic() - started)
            had = done.rows - tally.rows
            self._size = self._size_after(window, rows, had)
            windows.took(window, tally.position, rows, had)
            return replace(done, longest_ms=max(done.longest_ms, self._took / timedelta(milliseconds=1)))

    def _size_after(self, window: Window, rows: int, had: int) -> ChunkSize:
        if not window.is_guess:
            return self._size.after(self._took, rows)
        if 2 * had < rows:
            return self._size.after(self._took, had)
        return self._size.after(self._took * rows / had, rows)

    def _chunk(self, plan: DeletePlan, window: Window, archive: Archive | None, tally: Tally) -> Tally:
        doomed = and_(window.condition, plan.predicate)
        if self._request.dry_run:
            with self._context.reading(self._database) as connection:
                count = connection.execute(select(func.count()).select_from(plan.table).where(doomed)).scalar_one()
            return tally.plus(window, count)
        if archive is not None:
            archive.cut_to(tally.archive_end)
        try:
            with self._context.writing(self._database) as connection:
                return self._delete(connection, plan, window, doomed, archive, tally)
        except DBAPIError as error:
            if self._database.failure(error) is Failure.FOREIGN_KEY:
                if archive is not None:
                    archive.cut_to(tally.archive_end)  # a deferred constraint fails at the commit, after the append
                raise self._still_referenced(plan, doomed, error) from error
            raise

    def _delete(
        self,
        connection: Connection,
        plan: DeletePlan,
        window: Window,
        doomed: ColumnElement[bool],
        archive: Archive | None,
        tally: Tally,
    ) -> Tally:
        self._database.dialect.set_for_transaction(
            connection,
            lock_timeout=self._request.lock_timeout,
            statement_timeout=self._longest_guess() if window.is_guess else None,
            waits_for_disk=archive is not None,
        )
        statement = delete(plan.table).where(doomed)
        if archive is None:
            rows = connection.execute(statement).rowcount
            if window.is_guess and rows > self._request.batch_size:
                raise _TooManyRows
            after = tally.plus(window, rows)
            self._context.save_checkpoint(connection, self._database, self._state(plan, after))
            return after
        gone = connection.execute(statement.returning(*archive.returning(plan.table))).all()
        member = archive.member(gone, tally.archive_end)
        after = replace(tally.plus(window, len(gone)), archive_end=tally.archive_end + len(member))
        # The checkpoint first: it raises LeaseLost when a newer attempt owns the file's end.
        self._context.save_checkpoint(connection, self._database, self._state(plan, after))
        archive.append(member, tally.archive_end)
        return after

    def _longest_guess(self) -> timedelta:
        longest = self._request.target * _LONGEST_GUESS
        limit = self._database.settings.statement_timeout
        return longest if limit is None else min(longest, limit)

    def _after_lock(self, plan: DeletePlan, tries: int, error: Exception) -> None:
        if tries >= _LOCK_TRIES:
            raise JobError(
                f"rows of {plan.facts.written} stayed locked by somebody else through {tries} tries: {error}",
                hint="the next attempt goes on from here; look for a long transaction on the table",
            ) from error
        self._context.log.debug("cleanup.chunk_retried", table=plan.facts.written, tries=tries, reason=str(error))
        self._context.wait(_FIRST_LOCK_PAUSE * 2 ** (tries - 1))

    def _still_referenced(self, plan: DeletePlan, doomed: ColumnElement[bool], error: DBAPIError) -> JobError:
        with self._context.reading(self._database) as connection:
            reference = blocking_reference(connection, plan.facts, plan.table, doomed, error)
        if reference is None:
            return JobError(f"rows of {plan.facts.written} are still referenced by another table", retryable=False)
        return JobError(
            f"rows of {plan.facts.written} are still referenced by {reference.table} ({reference.constraint})",
            hint=f"clean {reference.table} first, give the constraint ON DELETE CASCADE or SET NULL, "
            "or leave those rows out with `where`",
            retryable=False,
        )

    def _report(self, plan: DeletePlan, tally: Tally) -> None:
        self._context.progress(tally.rows, None if plan.estimate is None else max(plan.estimate, tally.rows))

    def _yield_to_others(self, tally: Tally) -> None:
        if not self._request.dry_run:
            thoroughly = tally.chunks % _CHUNKS_BETWEEN_THOROUGH_TIDIES == 0
            self._database.dialect.tidy(self._database.engine, thoroughly=thoroughly)
        pause = self._request.pause
        if pause is None:
            pause = min(self._took * _PAUSE_RATIO[self._database.dialect.name], _LONGEST_AUTOMATIC_PAUSE)
        if pause > timedelta(0):
            self._context.wait(pause)

    def _first_size(self) -> ChunkSize:
        largest = min(self._request.batch_size, _LARGEST_CHUNK[self._database.dialect.name])
        smallest = min(_SMALLEST_CHUNK, largest)
        return ChunkSize(min(_FIRST_CHUNK, largest), smallest, largest, self._request.target)

    def _left(self, tally: Tally) -> int:
        limit = self._request.max_rows
        return self._request.batch_size if limit is None else limit - tally.rows

    @contextlib.contextmanager
    def _open_archive(self, plan: DeletePlan) -> Iterator[Archive | None]:
        if self._request.archive_to is None or self._request.dry_run:
            yield None
            return
        names = [column.name for column in plan.facts.columns]
        with open_archive(self._request.archive_to, self._database.dialect.name, names) as archive:
            yield archive

    def _begin_archive(self, archive: Archive, tally: Tally, *, resumed: bool) -> Tally:
        if resumed:
            archive.cut_to(tally.archive_end)
            return tally
        return replace(tally, archive_start=archive.size_bytes, archive_end=archive.size_bytes)

    def _warn_of(self, plan: DeletePlan) -> None:
        if not plan.is_indexed:
            self._context.log.warning(
                "cleanup.index_missing", table=plan.facts.written, column=plan.column, method=plan.method
            )

    def _state(self, plan: DeletePlan, tally: Tally) -> JsonObject:
        return {
            "cutoff": plan.cutoff.isoformat(),
            "format": plan.format_name,
            "method": plan.method,
            "position": tally.position,
            "rows": tally.rows,
            "chunks": tally.chunks,
            "longest_ms": round(tally.longest_ms, 1),
            "archive_start": tally.archive_start,
            "archive_end": tally.archive_end,
            "estimate": plan.estimate,
        }

    def _result(self, plan: DeletePlan, tally: Tally) -> JsonObject:
        dry = self._request.dry_run
        result: JsonObject = {
            "rows_deleted": 0 if dry else tally.rows,
            "chunks": tally.chunks,
            "longest_chunk_ms": round(tally.longest_ms, 1),
            "bytes_archived": tally.archive_end - tally.archive_start,
            "method": plan.method,
            "cutoff": plan.cutoff.isoformat(),
            "dry_run": dry,
        }
        if dry:
            result["rows_matching"] = tally.rows
        return result


def _restored(saved: JsonObject) -> Tally:
    position = saved["position"]
    rows, chunks, longest = saved["rows"], saved["chunks"], saved["longest_ms"]
    start, end = saved["archive_start"], saved["archive_end"]
    assert isinstance(position, dict)
    assert isinstance(rows, int)
    assert isinstance(chunks, int)
    assert isinstance(longest, int | float)
    assert isinstance(start, int)
    assert isinstance(end, int)
    return Tally(position, rows, chunks, longest, start, end)
