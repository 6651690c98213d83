"""Records with their lines, and the byte offset behind the last one: where a later attempt goes on.

Two ways lead through the same lines. The careful one gives csv.reader one line at a time: it asks for no line too many,
so the bytes of the lines that it was given are the bytes of the records that it gave. The fast one parses as many lines
as a chunk has at once, and holds when each of them was one record, which is so but for fields with line breaks in them
and for broken quotations; else the same lines are gone through carefully.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import methodcaller

from batchd.db.staging import PlainRows
from batchd.errors import JobError
from batchd.jobs.csv_import.byte_lines import ByteLines, Lines, WideLines
from batchd.jobs.csv_import.formats import CsvFormat

LONGEST_RECORD = 64 << 20
"""A quote that is never closed makes one record of all the rest: memory must not follow it."""

_SAID = {"unexpected end of data": "a quoted field is not closed before the end of the file"}


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is none: the line on which it begins, and why; `fields` as far as they are known."""

    line: int
    reason: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Records:
    """Some records: `lines` says on which line each begins."""

    lines: Sequence[int]
    rows: Sequence[Sequence[str]]
    bad: Sequence[BadRecord] = ()


class RecordReader:
    """Reads records from `read(size)`, which begins at byte `offset`, behind line `line`. For one thread."""

    def __init__(self, read: Callable[[int], bytes], form: CsvFormat, *, offset: int, line: int) -> None:
        csv.field_size_limit(LONGEST_RECORD)  # the limit is the whole process's; nothing else here reads CSV for long
        self.is_at_end = False
        self._form = form
        self._lines: Lines = (WideLines if form.is_utf16 else ByteLines)(read, form, offset=offset, line=line)
        self._begin_offset = offset
        self._begin_line = line + 1
        self._undecodable: str | None = None
        self._reader = form.reader(self._one_by_one())

    @property
    def offset(self) -> int:
        """Return the offset behind the last record that was taken."""
        return self._lines.offset

    @property
    def line(self) -> int:
        """Return the last line of the last record that was taken."""
        return self._lines.line

    def skip_lines(self, count: int) -> None:
        """Leave the next lines out; call it before the first record is taken."""
        for _ in range(count):
            self._lines.next_line()
        self._begin()

    def take(self, width: int | None, *, rows: int, size: int) -> Records:
        """Return the next records, at most so many rows or about so many bytes; nothing at the end.

        A record of another width than `width` is bad; a blank line is no record. Raises JobError for a record that is
        too long to be one.
        """
        return self._taken_at_once(width, rows, size) or self._taken_carefully(width, rows, size)

    def _taken_at_once(self, width: int | None, rows: int, size: int) -> Records | None:
        """Return the records of the next lines if each line is one; None, and nothing is taken, when it may not be."""
        texts = self._lines.peek(rows, size)
        if not texts or width is None:
            return None
        if self._are_plain(texts, width):
            first = self._take_lines(len(texts))
            return Records(range(first, first + len(texts)), PlainRows(texts, self._form.delimiter))
        try:
            parsed = list(self._form.reader(texts))
        except csv.Error:
            return None
        if len(parsed) != len(texts):
            return None
        first = self._take_lines(len(texts))
        if set(map(len, parsed)) == {width}:
            return Records(range(first, first + len(parsed)), parsed)
        numbered = list(enumerate(parsed, start=first))
        good = [(line, fields) for line, fields in numbered if len(fields) == width]
        bad = [_of_wrong_width(line, fields, width) for line, fields in numbered if fields and len(fields) != width]
        return Records([line for line, _ in good], [fields for _, fields in good], bad)

    def _are_plain(self, texts: Sequence[str], width: int) -> bool:
        """Whether a split at the delimiters gives the records: most files have no quote in most of their chunks."""
        form = self._form
        if form.escape is not None or not PlainRows.can_be_delimited_by(form.delimiter):
            return False
        everything = "\n".join(texts)
        if any(special in everything for special in (form.quote or "\\", "\\", "\r", "\x00")):
            return False
        if set(map(methodcaller("count", form.delimiter), texts)) != {width - 1}:
            return False
        return width > 1 or "" not in texts

    def _take_lines(self, count: int) -> int:
        """Take the lines that were peeked at and return the number of the first."""
        first = self.line + 1
        self._lines.skip(count)
        self._begin()
        return first

    def _taken_carefully(self, width: int | None, rows: int, size: int) -> Records:
        lines: list[int] = []
        taken: list[list[str]] = []
        bad: list[BadRecord] = []
        limit = self.offset + size
        while len(taken) + len(bad) < rows and self.offset < limit:
            try:
                fields = next(self._reader, None)
            except csv.Error as error:
                bad.append(BadRecord(self._begin(), self._undecodable or _SAID.get(str(error), str(error))))
                self._undecodable = None
                continue
            if fields is None:
                self.is_at_end = True
                break
            line = self._begin()
            if self._undecodable is not None:
                bad.append(BadRecord(line, self._undecodable, tuple(fields)))
                self._undecodable = None
            elif fields and width is not None and len(fields) != width:
                bad.append(_of_wrong_width(line, fields, width))
            elif fields:
                lines.append(line)
                taken.append(fields)
        return Records(lines, taken, bad)

    def _begin(self) -> int:
        """Return the line on which the record began that has just been read; the next begins behind it."""
        line, self._begin_line = self._begin_line, self.line + 1
        self._begin_offset = self.offset
        return line

    def _one_by_one(self) -> Iterator[str]:
        while (found := self._lines.next_line()) is not None:
            text, problem = found
            self._undecodable = self._undecodable or problem
            if self.offset - self._begin_offset > LONGEST_RECORD:
                raise JobError(
                    f"the record that begins on line {self._begin_line} is longer than {LONGEST_RECORD >> 20} MiB",
                    hint='is a quote on that line never closed? If quotes mean nothing in this file, set `quote = ""`',
                    retryable=False,
                )
            yield text


def _of_wrong_width(line: int, fields: Sequence[str], width: int) -> BadRecord:
    return BadRecord(line, f"has {len(fields)} fields instead of {width}", tuple(fields[: 2 * width]))
