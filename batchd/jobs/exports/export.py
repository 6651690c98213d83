"""One export: the whole of it from one snapshot, or slice by slice with a note behind each.

A whole export reads everything in one transaction that sees one moment; a crash makes the next attempt begin anew. A
resumable one goes by slices of the key, also in one snapshot, and notes after each slice how far the file counts; an
attempt that resumes goes on with a snapshot of its own, so that the file then holds two moments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, func, select
from sqlalchemy.exc import DBAPIError

from batchd.db.engine import Database
from batchd.db.keys import Key, read_key, stored_key
from batchd.db.row_source import RowSource, RowsWanted, find_rows
from batchd.domain.job import JsonObject, JsonValue
from batchd.errors import JobError
from batchd.jobs.contract import JobContext
from batchd.jobs.exports.columns import write_parquet
from batchd.jobs.exports.names import file_at, has_moving_places, old_files
from batchd.jobs.exports.packing import Packer, packer
from batchd.jobs.exports.part_file import Note, PartFile, fresh_part, resumable_part
from batchd.jobs.exports.sheets import write_workbook
from batchd.jobs.exports.texts import TextFormat, header, lines, plain_select
from batchd.jobs.period import Period

_ROWS_AT_ONCE = 2_000
_ROWS_OF_A_GROUP = 50_000
_BOM = "\ufeff".encode()


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, where to and how; see the parameters of `csv_export` for each."""

    rows: RowsWanted
    path: Path
    text: TextFormat
    has_header: bool
    has_bom: bool
    compression: str | None
    level: int
    resumable: bool
    slice_rows: int
    exact_total: bool
    replaces: bool
    keep: int | None
    keep_for: timedelta | None
    dry_run: bool
    period: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """How far the file is. `last` and `reached` are keys: where a resumable export ends, and where it is."""

    rows: int = 0
    size: int = 0
    snapshots: int = 1
    last: Key | None = None
    reached: Key | None = None


class Export:
    """One attempt. For the attempt's thread."""

    def __init__(self, context: JobContext, database: Database, request: ExportRequest) -> None:
        self._context = context
        self._database = database
        self._request = request
        self._note = Note(request.path.parent, context.job, context.run_id)
        self._total: int | None = None
        self._moment = context.scheduled_for or context.now()

    def run(self) -> JsonObject:
        """Write the file, remove old ones, return the run's result."""
        request = self._request
        if request.dry_run:
            return self._counted()
        noted = self._note.read() if request.resumable else None
        if noted is not None:
            self._moment = datetime.fromisoformat(str(noted["moment"]))
        final = self._final() if noted is None else Path(str(noted["path"]))
        if not request.replaces and final.exists():
            raise JobError(
                f"{final} exists already",
                hint='set if_exists = "replace", or put {date} into the name',
                retryable=False,
            )
        if request.resumable:
            with resumable_part(final, self._context.run_id) as part:
                written = self._in_slices(part, noted)
                self._publish(part)
                self._note.remove()
        else:
            with fresh_part(final) as part:
                written = self._whole(part)
                self._publish(part)
        self._context.progress(written.rows, written.rows)
        return self._result(final, written, self._remove_old(final))

    def _final(self) -> Path:
        job, run_id = self._context.job, self._context.run_id
        return file_at(self._request.path, moment=self._moment, run_id=run_id, job=job).absolute()

    def _publish(self, part: PartFile) -> None:
        self._context.raise_if_stopping()  # an attempt that was overtaken must not put its file over the other's
        part.publish(replace=self._request.replaces)

    def _counted(self) -> JsonObject:
        with self._snapshot() as connection:
            source = self._source(connection)
            rows = connection.execute(_count_of(source)).scalar_one()
        self._context.progress(rows, rows)
        return {"path": str(self._final()), "rows": 0, "rows_matching": rows, "dry_run": True}

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        with (
            self._context.reading(self._database) as connection,
            self._database.dialect.read_only(connection),
        ):
            yield connection

    def _source(self, connection: Connection) -> RowSource:
        rows = rows_of(self._request, self._moment, self._database.dialect.name)
        return find_rows(connection, rows, ordered=self._request.resumable)

    def _look(self, connection: Connection) -> RowSource:
        """Return the source as the snapshot has it, and learn how many rows there are, about."""
        source = self._source(connection)
        if not self._request.exact_total:
            self._total = source.estimate(connection)
        else:
            self._total = connection.execute(_count_of(source)).scalar_one()
        return source

    def _whole(self, part: PartFile) -> Written:
        with self._snapshot() as connection:
            source = self._look(connection)
            if self._request.text.format in {"xlsx", "parquet"}:
                return self._as_book(connection, source, part)
            pack = packer(self._request.compression, self._request.level)
            part.write(pack.pack(self._head(source)))
            rows = self._add(part, pack, lines(connection, source, None, self._request.text), 0)
        part.write(pack.end_frame())
        return Written(rows, part.sync())

    def _as_book(self, connection: Connection, source: RowSource, part: PartFile) -> Written:
        is_book = self._request.text.format == "xlsx"
        found = self._rows(connection, source, _ROWS_AT_ONCE if is_book else _ROWS_OF_A_GROUP)
        steps = write_workbook(part.path, source.columns, found) if is_book else write_parquet(part.path, source, found)
        rows = 0
        for rows in steps:
            self._report(rows)
        return Written(rows, part.sync())

    def _rows(self, connection: Connection, source: RowSource, at_once: int) -> Iterator[Sequence[Sequence[Any]]]:
        reading = connection.execution_options(stream_results=True, yield_per=at_once, max_row_buffer=at_once)
        try:
            yield from reading.execute(plain_select(source, None)).partitions()
        except DBAPIError as error:
            if "DataError" not in type(error.orig).__name__:
                raise
            raise JobError(
                f"{source.name} has a value that Python cannot hold: {' '.join(str(error.orig).split())}",
                hint="convert it in a `query`, leave its column out with `columns`, or export as CSV",
                retryable=False,
            ) from error

    def _in_slices(self, part: PartFile, noted: JsonObject | None) -> Written:
        pack = packer(self._request.compression, self._request.level)
        with self._snapshot() as connection:
            source = self._look(connection)
            written = (
                self._begun(connection, source, part, pack) if noted is None else self._resumed(source, part, noted)
            )
            while written.last is not None and written.reached != written.last:
                self._report(written.rows)
                written = self._slice(connection, source, part, pack, written)
        return written

    def _begun(self, connection: Connection, source: RowSource, part: PartFile, pack: Packer) -> Written:
        if source.has_null_keys(connection):
            raise JobError(
                f"{source.name} has rows in which {' or '.join(source.key_names)} is NULL",
                hint="no order reaches them: choose another `key`, or leave `resumable` out",
                retryable=False,
            )
        part.cut_to(0)
        part.write(pack.pack(self._head(source)) + pack.end_frame())
        written = Written(size=part.sync(), last=source.last_key(connection))
        self._save(source, part, written)
        return written

    def _resumed(self, source: RowSource, part: PartFile, noted: JsonObject) -> Written:
        rows, size, snapshots = noted["rows"], noted["size"], noted["snapshots"]
        assert isinstance(rows, int)
        assert isinstance(size, int)
        assert isinstance(snapshots, int)
        if noted["shape"] != self._shape(source):
            raise JobError(
                "the run began with other columns or another key than the job has now",
                hint="trigger a new run",
                retryable=False,
            )
        part.cut_to(size)
        last, reached = (None if noted[name] is None else read_key(noted[name]) for name in ("last", "reached"))
        return Written(rows, size, snapshots + 1, last, reached)

    def _slice(
        self, connection: Connection, source: RowSource, part: PartFile, pack: Packer, written: Written
    ) -> Written:
        assert written.last is not None
        boundary = source.next_boundary(connection, written.reached, written.last, self._request.slice_rows)
        up_to = written.last if boundary is None else boundary
        found = lines(connection, source, source.between(written.reached, up_to), self._request.text)
        rows = self._add(part, pack, found, written.rows)
        part.write(pack.end_frame())
        written = replace(written, rows=rows, size=part.sync(), reached=up_to)
        self._save(source, part, written)
        return written

    def _shape(self, source: RowSource) -> JsonValue:
        return [list(source.key_names), list(source.columns)]

    def _save(self, source: RowSource, part: PartFile, written: Written) -> None:
        self._note.write(
            {
                "path": str(part.final),
                "moment": self._moment.isoformat(),
                "shape": self._shape(source),
                "rows": written.rows,
                "size": written.size,
                "snapshots": written.snapshots,
                "last": None if written.last is None else list(stored_key(written.last)),
                "reached": None if written.reached is None else list(stored_key(written.reached)),
            }
        )

    def _add(self, part: PartFile, pack: Packer, found: Iterator[tuple[bytes, int]], rows: int) -> int:
        for data, count in found:
            self._context.raise_if_stopping()
            part.write(pack.pack(data))
            rows += count
            self._report(rows)
        return rows

    def _head(self, source: RowSource) -> bytes:
        bom = _BOM if self._request.has_bom else b""
        return bom + (header(source, self._request.text) if self._request.has_header else b"")

    def _report(self, rows: int) -> None:
        self._context.raise_if_stopping()
        self._context.progress(rows, None if self._total is None else max(self._total, rows), "rows")

    def _remove_old(self, final: Path) -> int:
        request = self._request
        if not has_moving_places(request.path) or (request.keep is None and request.keep_for is None):
            return 0
        doomed = old_files(
            request.path,
            job=self._context.job,
            newest=final,
            keep=request.keep,
            keep_for=request.keep_for,
            now=self._context.now(),
        )
        for path in doomed:
            path.unlink(missing_ok=True)
        return len(doomed)

    def _result(self, final: Path, written: Written, removed: int) -> JsonObject:
        return {
            "path": str(final),
            "rows": written.rows,
            "bytes": written.size,
            "snapshots": written.snapshots,
            "removed_files": removed,
            "dry_run": False,
        }


def rows_of(request: ExportRequest, moment: datetime, dialect: str) -> RowsWanted:
    """Return the rows, `:since` and `:until` of the query in the period that ends at the moment."""
    query = request.rows.query
    if query is None or request.period is None:
        return request.rows
    return replace(request.rows, query=Period(moment - request.period, moment).written_into(query, dialect))


def _count_of(source: RowSource) -> Select[int]:
    return select(func.count()).select_from(source.selectable).where(source.condition)
