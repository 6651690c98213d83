"""One attempt of an import: source after source, chunk after chunk."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from batchd.db.catalogue import TableFacts, find_table
from batchd.db.engine import Database, driver_message
from batchd.db.fitting import DoesNotFit, Fitting
from batchd.db.staging import temporary_staging
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext
from batchd.jobs.csv_import.begin import ImportRequest, begun
from batchd.jobs.csv_import.chunks import Chunk, read_chunks
from batchd.jobs.csv_import.content import Content
from batchd.jobs.csv_import.formats import SAMPLE_BYTES, format_of
from batchd.jobs.csv_import.inbox import put_away
from batchd.jobs.csv_import.mapping import TableMapping, field_name, map_columns
from batchd.jobs.csv_import.read_ahead import ReadAhead
from batchd.jobs.csv_import.records import BadRecord, RecordReader
from batchd.jobs.csv_import.reject_file import RejectFile, open_reject_file
from batchd.jobs.csv_import.sources import FileFacts, facts_of, is_url, open_source
from batchd.jobs.csv_import.state import ImportState, Place, state_from_json
from batchd.jobs.csv_import.upsert_key import UpsertKey, upsert_key
from batchd.jobs.csv_import.writing import Writer, Written
from batchd.store.rejects import Reject

_ROWS = {"postgresql": 15_000, "sqlite": 5_000}
_HEADER_BYTES = 1 << 20
_CHUNKS_BETWEEN_THOROUGH_TIDIES = 20


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the records of one source go into the table."""

    mapping: TableMapping
    key: UpsertKey


class _DryRun(Exception):
    """Rolls a chunk's transaction back."""


class CsvImport:
    """One attempt. For the attempt's thread."""

    def __init__(self, context: JobContext, database: Database, request: ImportRequest) -> None:
        self._context = context
        self._database = database
        self._request = request
        self._rows = request.batch_size or _ROWS[database.dialect.name]
        self._state = ImportState((), "")
        self._chunks = 0
        self._is_careful = False

    def run(self) -> JsonObject:
        """Import everything and return the run's result; raises JobError when a source, or too much of it, is bad."""
        saved = None if self._request.dry_run else self._context.checkpoint(self._database)
        self._state = begun(self._request, self._context) if saved is None else state_from_json(saved)
        if saved is None:
            self._save()
        while self._state.at < len(self._state.sources):
            source = self._state.sources[self._state.at]
            try:
                self._import(source)
            except JobError as error:
                if error.retryable:
                    raise
                self._give_up(source, error)
        return self._result()

    def _import(self, source: FileFacts) -> None:
        place = self._state.place
        if place is None or not place.is_finished:
            name = self._request.path if is_url(source.name) else source.name
            raw = open_source(name, self._request.headers)
            try:
                content = Content(raw, None if place is None else place.resume, is_unchanged=self._is_unchanged(source))
                if raw.size is not None and source.size is None:
                    self._know_size(raw.size)
                self._import_content(source, content)
            finally:
                raw.close()
        assert self._state.place is not None
        if self._request.done_folder and not self._request.dry_run:
            put_away(Path(source.name), self._request.done_folder, self._context.run_id)
        self._context.log.info(
            "csv_import.imported",
            file=source.name,
            records=self._state.tally.records,
            rejected=self._state.place.rejected,
        )
        self._state = self._state.next_source(self._state.place.read_bytes)

    def _import_content(self, source: FileFacts, content: Content) -> None:
        if self._state.place is None:
            reader = self._first_reader(source, content)
        else:
            place = self._state.place
            reader = RecordReader(content.read, place.form, offset=place.resume.offset, line=place.line)
            self._context.log.info("csv_import.resumed", file=source.name, line=place.line + 1)
        assert self._state.place is not None
        header = self._state.place.header
        if header:
            with self._context.reading(self._database) as connection:
                plan = self._plan(find_table(connection, self._request.table), header)
            chunks = read_chunks(
                content, reader, width=len(header), rows=self._rows, dialect=self._database.dialect.name
            )
            folder = None if self._request.dry_run else self._request.rejects_to
            with (
                open_reject_file(folder, source.name, self._context.run_id, header) as rejects,
                ReadAhead(chunks, look=self._context.raise_if_stopping, wake=content.raw.close) as ahead,
            ):
                self._report()
                for chunk in ahead:
                    self._take(plan, source, chunk, rejects)
        self._state = replace(self._state, place=replace(self._state.place, is_finished=True))
        self._save()

    def _first_reader(self, source: FileFacts, content: Content) -> RecordReader:
        """Find out how the source is written, and read its header."""
        form = format_of(content.peek(SAMPLE_BYTES), self._request.form)
        content.read(form.begin)
        reader = RecordReader(content.read, form, offset=form.begin, line=0)
        reader.skip_lines(self._request.skip_lines)
        header = self._request.header
        if header is None:
            first = reader.take(None, rows=1, size=_HEADER_BYTES)
            if first.bad:
                raise JobError(
                    f"{source.name}, line {first.bad[0].line}: the header {first.bad[0].reason}",
                    hint="set `encoding`, `delimiter` or `quote`",
                    retryable=False,
                )
            header = first.rows[0] if first.rows else []
        resume = content.sealed_at(reader.offset)
        place = Place(
            form, tuple(name.strip() for name in header), resume, reader.line, content.read_bytes_at(reader.offset)
        )
        self._state = replace(self._state, place=place)
        said = {key: getattr(form, key) for key in ("encoding", "delimiter")}
        self._context.log.info("csv_import.format", file=source.name, detected=list(form.detected), **said)
        return reader

    def _plan(self, table: TableFacts, header: Sequence[str]) -> _Plan:
        computed = {
            "now": self._state.now,
            "file": Path(self._state.sources[self._state.at].name).name,
            "run_id": str(self._context.run_id),
        }
        mapping = map_columns(table, header, self._request.mapping, computed)
        wanted = self._request
        from_file = [mapped.column.name for mapped in mapping.fields]
        return _Plan(mapping, upsert_key(table, from_file, mapping, wanted.conflict, wanted.key, wanted.update))

    def _take(self, plan: _Plan, source: FileFacts, chunk: Chunk, rejects: RejectFile | None) -> None:
        """Import the chunk. Until bad records show up each chunk is tried as if there were none."""
        before = self._state.tally.rejected
        try:
            self._commit(plan, source, chunk, rejects)
        except DoesNotFit:
            self._is_careful = True
            self._commit(plan, source, chunk, rejects)
        self._is_careful = self._state.tally.rejected > before
        self._report()
        self._chunks += 1
        if not self._request.dry_run:
            thoroughly = self._chunks % _CHUNKS_BETWEEN_THOROUGH_TIDIES == 0
            self._database.dialect.tidy(self._database.engine, thoroughly=thoroughly)
        if self._request.pause > timedelta(0):
            self._context.wait(self._request.pause)

    def _commit(self, plan: _Plan, source: FileFacts, chunk: Chunk, rejects: RejectFile | None) -> None:
        where = f"{source.name}, lines {chunk.first_line:,} to {chunk.line:,}"
        bad: list[BadRecord] = []
        try:
            with contextlib.suppress(_DryRun), self._context.writing(self._database) as connection:
                written, bad, is_complete = self._write(connection, plan, chunk)
                state = self._after(chunk, written, bad)
                self._refuse_too_many(state, is_complete=is_complete)
                state = self._with_rejects_kept(connection, source, state, bad, rejects)
                self._seal(connection, state)
        except _TooManyBad:
            self._keep_last_rejects(source, bad, rejects)
            raise self._too_many(source, bad) from None
        except DBAPIError as error:
            raise JobError(f"{where}: {driver_message(error)}") from error
        self._state = state

    def _write(self, connection: Connection, plan: _Plan, chunk: Chunk) -> tuple[Written, list[BadRecord], bool]:
        """Write what fits; return what became of it, what did not fit, and whether all of the chunk was looked at."""
        if not chunk.block.rows:
            return Written(), chunk.bad_records(()), True
        dialect = self._database.dialect
        dialect.begin_chunk(connection)
        with temporary_staging(connection, [field_name(number) for number in range(plan.mapping.width)]) as staging:
            staging.add(connection, chunk.block)
            writer = Writer(
                connection,
                dialect,
                plan.mapping,
                staging,
                self._request.conflict,
                key=plan.key.columns,
                updated=plan.key.updated,
                staged=None if self._is_careful or dialect.name == "sqlite" else chunk.block.rows,
            )
            assert self._state.place is not None
            left = self._request.max_rejects - self._state.place.rejected - len(chunk.bad_records(()))
            fitting = Fitting(connection, dialect, staging, writer.values, writer.move, is_careful=self._is_careful)
            fitted = fitting.run(most_misfits=max(0, left))
        return sum(fitted.done, Written()), chunk.bad_records(fitted.misfits), fitted.is_complete

    def _after(self, chunk: Chunk, written: Written, bad: Sequence[BadRecord]) -> ImportState:
        place = self._state.place
        assert place is not None
        return replace(
            self._state,
            place=replace(
                place,
                resume=chunk.resume,
                line=chunk.line,
                read_bytes=max(place.read_bytes, chunk.read_bytes),
                rejected=place.rejected + len(bad),
            ),
            tally=self._state.tally.plus(chunk.records, written, len(bad)),
        )

    def _with_rejects_kept(
        self,
        connection: Connection,
        source: FileFacts,
        state: ImportState,
        bad: Sequence[BadRecord],
        rejects: RejectFile | None,
    ) -> ImportState:
        """Keep the bad records in the chunk's transaction and in the reject file; return the state with its length."""
        assert state.place is not None
        if not bad or self._request.dry_run:
            return state
        kept = [_reject(source, state.place.header, record) for record in bad]
        self._context.keep_rejects(connection, self._database, kept, before=self._state.tally.rejected)
        if rejects is None:
            return state
        length = rejects.append(bad, state.place.reject_bytes)
        return replace(state, place=replace(state.place, reject_bytes=length))

    def _keep_last_rejects(self, source: FileFacts, bad: Sequence[BadRecord], rejects: RejectFile | None) -> None:
        """Keep what ended the import for a person to look at, although its chunk was rolled back."""
        if not self._request.dry_run:
            with self._context.writing(self._database) as connection:
                self._with_rejects_kept(connection, source, self._state, bad, rejects)

    def _refuse_too_many(self, state: ImportState, *, is_complete: bool) -> None:
        assert state.place is not None
        if not is_complete or state.place.rejected > self._request.max_rejects:
            raise _TooManyBad

    def _seal(self, connection: Connection, state: ImportState) -> None:
        """Let the chunk's transaction commit with its checkpoint, or roll back when this is only a rehearsal."""
        if self._request.dry_run:
            raise _DryRun
        self._context.save_checkpoint(connection, self._database, state.as_json())

    def _too_many(self, source: FileFacts, bad: Sequence[BadRecord]) -> JobError:
        assert self._state.place is not None
        first = bad[0]
        return JobError(
            f"{source.name}: more than {self._request.max_rejects} bad records (`max_rejects`); "
            f"line {first.line:,}: {first.reason}",
            hint=f"lines up to {self._state.place.line:,} are imported; `batchd show` lists what is bad",
            retryable=False,
        )

    def _give_up(self, source: FileFacts, error: JobError) -> None:
        """Put a bad file aside and go on with the next; a single one fails the run."""
        place = self._state.place
        said = error.message if error.message.startswith(source.name) else f"{source.name}: {error.message}"
        is_alone = len(self._state.sources) == 1
        if is_alone and not self._request.failed_folder:
            raise JobError(said, hint=error.hint, retryable=False, result=self._counts())
        self._context.log.error("csv_import.file_failed", file=source.name, reason=error.message)
        self._state = self._state.next_source(place.read_bytes if place else 0, said)
        self._save()
        if self._request.failed_folder and not self._request.dry_run:
            moved = put_away(Path(source.name), self._request.failed_folder, self._context.run_id)
            if moved is not None:
                note = said + (f"\n{error.hint}" if error.hint else "")
                with contextlib.suppress(OSError):
                    moved.with_name(moved.name + ".error").write_text(note + "\n")

    def _result(self) -> JsonObject:
        result = self._counts()
        failed = self._state.failed
        if failed:
            raise JobError(
                f"{len(failed)} of {len(self._state.sources)} files failed: {'; '.join(failed)}",
                retryable=False,
                result=result,
            )
        return result

    def _counts(self) -> JsonObject:
        state, tally = self._state, self._state.tally
        return {
            "files": len(state.sources),
            "files_failed": len(state.failed),
            "records": tally.records,
            "inserted": tally.inserted,
            "updated": tally.updated,
            "skipped": tally.skipped,
            "rejected": tally.rejected,
            "bytes": state.done_bytes + (state.place.read_bytes if state.place else 0),
            "dry_run": self._request.dry_run,
        }

    def _is_unchanged(self, source: FileFacts) -> bool:
        return source.modified_ns is not None and facts_of(Path(source.name)) == source

    def _know_size(self, size: int) -> None:
        at = self._state.at
        sources = [
            replace(each, size=size) if number == at else each for number, each in enumerate(self._state.sources)
        ]
        self._state = replace(self._state, sources=tuple(sources))

    def _save(self) -> None:
        if not self._request.dry_run:
            with self._context.writing(self._database) as connection:
                self._context.save_checkpoint(connection, self._database, self._state.as_json())

    def _report(self) -> None:
        place = self._state.place
        assert place is not None
        total = self._state.total_bytes
        done = self._state.done_bytes + place.read_bytes
        name = Path(self._state.sources[self._state.at].name).name
        self._context.progress(
            done if total is None else min(done, total), total, f"bytes, line {place.line:,} of {name}"
        )


class _TooManyBad(Exception):
    """Rolls the chunk back in which the limit was passed."""


def _reject(source: FileFacts, header: Sequence[str], record: BadRecord) -> Reject:
    fields: JsonObject = dict(zip(header, record.fields, strict=False))
    return Reject(source.name, record.line, record.reason, record=fields or None)
