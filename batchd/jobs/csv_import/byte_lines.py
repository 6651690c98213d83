"""Lines of text out of bytes, each with its exact length in bytes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Protocol

from batchd.errors import JobError
from batchd.jobs.csv_import.formats import CsvFormat

LONGEST_LINE = 64 << 20

_READ = 128 * 1024


class Lines(Protocol):
    """Lines one after the other. `offset` and `line` say how far they were taken."""

    offset: int
    line: int

    def next_line(self) -> tuple[str, str | None] | None:
        """Return the next line with its end, and what is wrong with its encoding if something is; None at the end."""
        ...

    def peek(self, most: int, size: int) -> Sequence[str]:
        """Return up to `most` of the next lines without their ends, or about `size` bytes of them.

        None of them counts as taken. Nothing at the end, and where they cannot all be decoded.
        """
        ...

    def skip(self, count: int) -> None:
        """Take as many lines as were peeked at."""
        ...


class ByteLines:
    """Lines in an encoding in which a line's end is one byte that is part of no other character. See `Lines`."""

    def __init__(self, read: Callable[[int], bytes], form: CsvFormat, *, offset: int, line: int) -> None:
        self.offset = offset
        self.line = line
        self._read = read
        self._encoding = form.encoding
        self._newline = form.newline.encode()
        self._waiting: list[bytes] = []
        self._at = 0
        self._rest = b""
        self._is_open = True
        self._ends_without_newline = False

    def next_line(self) -> tuple[str, str | None] | None:
        """See `Lines`."""
        if not self._fill(1, 1):
            return None
        line = self._waiting[self._at]
        if not self._is_the_cut_one(self._at):
            line += self._newline
        self._at += 1
        self.offset += len(line)
        self.line += 1
        try:
            return line.decode(self._encoding), None
        except UnicodeDecodeError as error:
            seen = " ".join(f"{byte:02x}" for byte in line[error.start : error.start + 4])
            problem = f"line {self.line} is not {self._encoding}: bytes {seen}"
            return line.decode(self._encoding, errors="replace"), problem

    def peek(self, most: int, size: int) -> Sequence[str]:
        """See `Lines`."""
        count = self._fill(most, size)
        try:
            text = self._newline.join(self._waiting[self._at : self._at + count]).decode(self._encoding)
        except UnicodeDecodeError:
            return ()
        text = text.removesuffix("\r")
        if "\r" in text and text.count("\r\n") == text.count("\r"):
            text = text.replace("\r\n", "\n")
        return text.split(self._newline.decode()) if count else ()

    def skip(self, count: int) -> None:
        """See `Lines`."""
        taken = self._waiting[self._at : self._at + count]
        self.offset += sum(map(len, taken)) + count - self._is_the_cut_one(self._at + count - 1)
        self.line += count
        self._at += count

    def _is_the_cut_one(self, index: int) -> bool:
        """Whether the line is the source's last, and has no end."""
        return self._ends_without_newline and index == len(self._waiting) - 1

    def _fill(self, most: int, size: int) -> int:
        """Have up to `most` lines at hand, or `size` bytes of them, and return how many there are."""
        count = len(self._waiting) - self._at
        if count >= most or not self._is_open:
            return min(count, most)
        del self._waiting[: self._at]
        self._at = 0
        read = sum(map(len, self._waiting))
        while len(self._waiting) < most and (read < size or not self._waiting):
            block = self._read(_READ)
            read += len(block)
            self._split(block)
            if not block:
                break
        return min(len(self._waiting), most)

    def _split(self, block: bytes) -> None:
        if not block:
            self._is_open = False
            if self._rest:
                self._waiting.append(self._rest)
                self._ends_without_newline = True
            return
        if self._newline not in block:
            self._rest += block
            if len(self._rest) > LONGEST_LINE:
                raise too_long(self.line + len(self._waiting) - self._at + 1)
            return
        *lines, rest = block.split(self._newline)
        lines[0] = self._rest + lines[0]
        self._waiting += lines
        self._rest = rest


_MARK = "\udfff"
"""Stands for what is not UTF-16: half of a pair, which no text has by itself, and as long as what it stands for."""

_MARKING = "batchd.mark"


def _marked(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _MARK, error.end


codecs.register_error(_MARKING, _marked)


class WideLines:
    """Lines of UTF-16, in which a line's end is two bytes that mean something else at an odd place. See `Lines`."""

    def __init__(self, read: Callable[[int], bytes], form: CsvFormat, *, offset: int, line: int) -> None:
        self.offset = offset
        self.line = line
        self._read = read
        self._form = form
        self._decoder = codecs.getincrementaldecoder(form.encoding)(errors=_MARKING)
        self._waiting: list[str] = []
        self._rest = ""
        self._is_open = True

    def next_line(self) -> tuple[str, str | None] | None:
        """See `Lines`."""
        while self._is_open and not self._waiting:
            self._fill()
        if not self._waiting:
            return None
        line = self._waiting.pop()
        self.offset += len(line.encode(self._form.encoding, errors="surrogatepass"))
        self.line += 1
        if _MARK not in line:
            return line, None
        return line.replace(_MARK, "\ufffd"), f"line {self.line} is not {self._form.encoding}"

    def peek(self, most: int, size: int) -> Sequence[str]:  # noqa: ARG002 (rare enough to be read carefully only)
        """See `Lines`; never any: such files are rare enough to be read line by line."""
        return ()

    def skip(self, count: int) -> None:
        """Never called."""
        raise NotImplementedError(count)

    def _fill(self) -> None:
        block = self._read(_READ)
        *lines, rest = (self._rest + self._decoder.decode(block, final=not block)).split(self._form.newline)
        self._rest = rest
        self._waiting = [line + self._form.newline for line in reversed(lines)]
        if not block:
            self._is_open = False
            if rest:
                self._waiting.insert(0, rest)
        elif 2 * len(rest) > LONGEST_LINE:
            raise too_long(self.line + len(lines) + 1)


def too_long(line: int) -> JobError:
    """Return the error for a line that cannot be meant."""
    return JobError(
        f"line {line} is longer than {LONGEST_LINE >> 20} MiB", hint="is this a CSV file at all?", retryable=False
    )
