"""Records in chunks, each ready for the staging table and with the resume point behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batchd.db.staging import Block, Misfit, block_of
from batchd.jobs.csv_import.content import Content, Resume
from batchd.jobs.csv_import.records import BadRecord, RecordReader

MOST_BYTES = 4 << 20
"""Bytes of one chunk, about: some chunks are in memory at once, each several times over."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some records. `line` and `read_bytes` say how far the source was read behind them."""

    first_line: int
    lines: Sequence[int]
    rows: Sequence[Sequence[str]]
    bad: Sequence[BadRecord]
    block: Block
    resume: Resume
    line: int
    read_bytes: int

    @property
    def records(self) -> int:
        """How many records it holds, bad ones too."""
        return len(self.rows) + len(self.bad)

    def bad_records(self, misfits: Sequence[Misfit]) -> list[BadRecord]:
        """Return every record that is not imported, by line; `misfits` are those that the table does not take."""
        unfit = [*self.block.misfits, *misfits]
        if not unfit:
            return list(self.bad)
        row_of = dict(zip(self.lines, self.rows, strict=True))
        found = [BadRecord(misfit.position, misfit.reason, tuple(row_of[misfit.position])) for misfit in unfit]
        return sorted([*self.bad, *found], key=lambda record: record.line)


def read_chunks(content: Content, reader: RecordReader, *, width: int, rows: int, dialect: str) -> Iterator[Chunk]:
    """Yield the source's records in chunks of at most `rows`."""
    while not reader.is_at_end:
        first_line = reader.line + 1
        taken = reader.take(width, rows=rows, size=MOST_BYTES)
        if taken.rows or taken.bad:
            yield Chunk(
                first_line=first_line,
                lines=taken.lines,
                rows=taken.rows,
                bad=taken.bad,
                block=block_of(dialect, taken.lines, taken.rows),
                resume=content.sealed_at(reader.offset),
                line=reader.line,
                read_bytes=content.read_bytes_at(reader.offset),
            )
