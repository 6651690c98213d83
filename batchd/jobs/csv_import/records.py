"""Records with their lines, and the byte offset behind the last one: where a later attempt goes on.

csv.reader asks for one line at a time and for no line too many, so the bytes of the lines that it was given are the
bytes of the records that it gave.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from batchd.errors import JobError
from batchd.jobs.csv_import.formats import CsvFormat

LONGEST_RECORD = 64 << 20
"""A quote that is never closed makes one record of all the rest: memory must not follow it."""

_READ = 128 * 1024
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

    lines: list[int]
    rows: list[list[str]]
    bad: list[BadRecord]


class RecordReader:
    """Reads records from `read(size)`, which begins at byte `offset`, behind line `line`. For one thread."""

    def __init__(self, read: Callable[[int], bytes], form: CsvFormat, *, offset: int, line: int) -> None:
        csv.field_size_limit(LONGEST_RECORD)  # the limit is the whole process's; nothing else here reads CSV for long
        self.offset = offset
        self.line = line
        self.is_at_end = False
        self._read = read
        self._form = form
        self._begin_offset = offset
        self._begin_line = line + 1
        self._undecodable: str | None = None
        self._lines = self._wide_lines() if form.is_utf16 else self._byte_lines()
        self._reader = form.reader(self._lines)

    def take(self, width: int | None, *, rows: int, size: int) -> Records:
        """Return the next records, at most so many rows or about so many bytes; nothing at the end.

        A record of another width than `width` is bad; a blank line is no record. Raises JobError for a record that is
        too long to be one.
        """
        taken = Records([], [], [])
        limit = self.offset + size
        while True:
            try:
                fields = next(self._reader, None)
            except csv.Error as error:
                taken.bad.append(BadRecord(self._begun(), _SAID.get(str(error), str(error))))
                fields = []
            else:
                if fields is None:
                    self.is_at_end = True
                    return taken
                line = self._begun()
                if self._undecodable is not None:
                    taken.bad.append(BadRecord(line, self._undecodable, tuple(fields)))
                    self._undecodable = None
                elif width is None or len(fields) == width:
                    if fields:
                        taken.lines.append(line)
                        taken.rows.append(fields)
                elif fields:
                    taken.bad.append(
                        BadRecord(line, f"has {len(fields)} fields instead of {width}", tuple(fields[: 2 * width]))
                    )
            if len(taken.rows) + len(taken.bad) >= rows or self.offset >= limit:
                return taken

    def skip_lines(self, count: int) -> None:
        """Leave the next lines out; call it before the first record is taken."""
        for _ in range(count):
            next(self._lines, None)
            self._begun()
        self._undecodable = None

    def _begun(self) -> int:
        """Return the line on which the record began that has just been read, and begin the next."""
        line, self._begin_line = self._begin_line, self.line + 1
        self._begin_offset = self.offset
        return line

    def _byte_lines(self) -> Iterator[str]:
        """Yield lines in an encoding in which a line's end is one byte that is part of no other character."""
        encoding, newline = self._form.encoding, self._form.newline.encode()
        rest = b""
        while block := self._read(_READ):
            if newline not in block:
                rest += block
                self._refuse_endless(len(rest))
                continue
            *lines, rest = (rest + block).split(newline)
            for part in lines:
                line = part + newline
                self.offset += len(line)
                self.line += 1
                yield self._decoded(line, encoding)
                self._refuse_endless(0)
        if rest:
            self.offset += len(rest)
            self.line += 1
            yield self._decoded(rest, encoding)

    def _wide_lines(self) -> Iterator[str]:
        """Yield lines of UTF-16, in which a line's end is two bytes that mean something else at an odd place."""
        encoding, newline = self._form.encoding, self._form.newline
        decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        rest = ""
        while True:
            block = self._read(_READ)
            *lines, rest = (rest + decoder.decode(block, final=not block)).split(newline)
            for part in lines:
                yield self._wide_line(part + newline)
                self._refuse_endless(0)
            self._refuse_endless(2 * len(rest))
            if not block:
                break
        if rest:
            yield self._wide_line(rest)

    def _wide_line(self, line: str) -> str:
        self.offset += len(line.encode(self._form.encoding, errors="surrogatepass"))
        self.line += 1
        if "\ufffd" in line:
            self._undecodable = self._undecodable or f"line {self.line} is not {self._form.encoding}"
        return line

    def _decoded(self, line: bytes, encoding: str) -> str:
        try:
            return line.decode(encoding)
        except UnicodeDecodeError as error:
            seen = " ".join(f"{byte:02x}" for byte in line[error.start : error.start + 4])
            self._undecodable = self._undecodable or f"line {self.line} is not {encoding}: bytes {seen}"
            return line.decode(encoding, errors="replace")

    def _refuse_endless(self, waiting: int) -> None:
        if self.offset - self._begin_offset + waiting > LONGEST_RECORD:
            raise JobError(
                f"the record that begins on line {self._begin_line} is longer than {LONGEST_RECORD >> 20} MiB",
                hint='is a quote on that line never closed? If quotes mean nothing in this file, set `quote = ""`',
                retryable=False,
            )
