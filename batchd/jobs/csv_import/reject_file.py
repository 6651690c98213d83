"""Bad records in a file of their own, with line and reason before the record's fields."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from batchd.jobs.appended_file import AppendedFile, open_appended
from batchd.jobs.csv_import.records import BadRecord


class RejectFile:
    """The reject file of one source in one run. For one thread."""

    def __init__(self, file: AppendedFile, header: Sequence[str]) -> None:
        self._file = file
        self._header = header

    def append(self, bad: Sequence[BadRecord], offset: int) -> int:
        """Write the records at `offset`, wait until they are on the disk, and return the file's new length."""
        if not bad:
            return offset
        written = io.StringIO(newline="")
        lines = csv.writer(written, lineterminator="\n")
        if offset == 0:
            lines.writerow(["line", "reason", *self._header])
        lines.writerows([record.line, record.reason, *record.fields] for record in bad)
        data = written.getvalue().encode(errors="backslashreplace")
        self._file.cut_to(offset)
        self._file.append(data, offset)
        return offset + len(data)


@contextlib.contextmanager
def open_reject_file(
    folder: Path | None, source: str, run_id: int, header: Sequence[str]
) -> Iterator[RejectFile | None]:
    """Open the file when the first bad record could come; None without a folder. An empty one is removed again."""
    if folder is None:
        yield None
        return
    path = folder / f"{Path(source).name or 'source'}.run{run_id}.rejects"
    with open_appended(path, "reject file") as file:
        yield RejectFile(file, header)
        if file.size_bytes == 0:
            path.unlink(missing_ok=True)
