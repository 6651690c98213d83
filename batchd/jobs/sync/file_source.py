"""Records from a CSV or NDJSON file, line by line."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from batchd.domain.job import JsonObject, JsonValue
from batchd.errors import JobError
from batchd.jobs.sync.answers import Spent
from batchd.jobs.sync.bodies import line_records, ndjson_lines
from batchd.jobs.sync.sources import BadLine, Page, SourceFacts

if TYPE_CHECKING:
    from batchd.jobs.sync.record_reader import RecordReader

_RECORDS_OF_A_PAGE = 5_000
_LONGEST_FIELD = 16 << 20


class FileSource:
    """See `Source`. A file that was changed or replaced is another list, which is read from its beginning."""

    def __init__(self, path: Path, reader: RecordReader | None, *, is_csv: bool) -> None:
        self.name = str(path)
        self._reader = reader
        self._is_csv = is_csv
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise JobError(f"{path}: {error.strerror}", hint="may the daemon's user read it?") from error
        found = os.fstat(self._file.fileno())
        self._mark = f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
        self._size = found.st_size
        self.facts = SourceFacts({"file": self._mark})

    @property
    def mark(self) -> str | None:
        """See `Source`."""
        return self._mark

    def not_modified_since(self, validators: JsonValue) -> bool:
        """Whether it is the file of the last run, unchanged."""
        return isinstance(validators, dict) and validators.get("file") == self._mark

    def pages(self, place: JsonObject | None) -> Iterator[Page]:
        """See `Source`."""
        done = place.get("records", 0) if place else 0
        assert isinstance(done, int)
        coming = islice(self._csv_records() if self._is_csv else ndjson_lines(self._file, self.name), done, None)
        page = list(islice(coming, _RECORDS_OF_A_PAGE))
        while True:
            following = list(islice(coming, _RECORDS_OF_A_PAGE))
            done += len(page)
            records = page if self._is_csv else line_records(page, self._reader)
            yield Page(records, {"records": done} if following else None)
            if not following:
                return
            page = following

    def taken(self) -> Spent:
        """See `Source`."""
        spent, self._size = Spent(bytes=self._size), 0
        return spent

    def close(self) -> None:
        """See `Source`."""
        self._file.close()

    def _csv_records(self) -> Iterator[Any]:
        csv.field_size_limit(_LONGEST_FIELD)
        reader = csv.reader(_text_lines(self._file), strict=True)
        try:
            header = next(reader, None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise JobError(f"{self.name}: the header cannot be read: {error}", retryable=False) from error
        if header is None:
            return
        while True:
            try:
                fields = next(reader, None)
            except UnicodeDecodeError as error:
                raise JobError(f"{self.name}: line {reader.line_num + 1} is not UTF-8", retryable=False) from error
            except csv.Error as error:
                yield BadLine(f"line {reader.line_num}: {error}", "")
                continue
            if fields is None:
                return
            if not fields:
                continue
            if len(fields) == len(header):
                yield {name: field or None for name, field in zip(header, fields, strict=True)}
            else:
                reason = f"line {reader.line_num}: has {len(fields)} fields instead of {len(header)}"
                yield BadLine(reason, ",".join(fields))


def _text_lines(file: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(file):
        yield (line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line).decode()
