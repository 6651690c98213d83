"""Rows on their way out: appended to a gzip file before their DELETE commits, each exactly once.

Every chunk is one gzip member, so the file is an ordinary .gz at any moment, and its length is a resume point. The
checkpoint that commits with the DELETE holds the length; whatever lies beyond it belongs to a chunk that never
committed and is cut off before the next write.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Table, Text, cast, func

from batchd.jobs.appended_file import AppendedFile, open_appended

SUFFIXES = (".csv.gz", ".jsonl.gz", ".ndjson.gz")
_GZIP_LEVEL = 3


class Archive:
    """An open archive file, locked against other processes. For one thread."""

    def __init__(self, file: AppendedFile, dialect: str, columns: Sequence[str]) -> None:
        self._file = file
        self._as_text = dialect == "postgresql"
        self._columns = tuple(columns)
        self._is_csv = file.path.name.endswith(".csv.gz")

    @property
    def size_bytes(self) -> int:
        """The file's length."""
        return self._file.size_bytes

    def returning(self, table: Table) -> list[ColumnElement[Any]]:
        """Return what a DELETE gives back for each column: on PostgreSQL the server's own exact text."""
        columns = [table.c[name] for name in self._columns]
        if not self._as_text:
            return list(columns)
        return [cast(column if self._is_csv else func.to_json(column), Text) for column in columns]

    def member(self, rows: Iterable[Sequence[Any]], offset: int) -> bytes:
        """Return the rows as one gzip member to be written at `offset`; a CSV file's first one has a header."""
        lines = [self._csv_line(row) if self._is_csv else self._json_line(row) for row in rows]
        if self._is_csv and offset == 0:
            lines.insert(0, self._csv_line(self._columns))
        return gzip.compress("".join(lines).encode(), _GZIP_LEVEL, mtime=0) if lines else b""

    def cut_to(self, offset: int) -> None:
        """Drop what lies beyond `offset`; raises JobError when the file is shorter: archived rows are missing."""
        self._file.cut_to(offset)

    def append(self, member: bytes, offset: int) -> None:
        """Write the member at `offset` and wait until it is on the disk."""
        self._file.append(member, offset)

    def _csv_line(self, row: Iterable[Any]) -> str:
        return ",".join(_csv_field(value) for value in row) + "\n"

    def _json_line(self, row: Sequence[Any]) -> str:
        pairs = zip(self._columns, row, strict=True)
        return "{" + ", ".join(f"{json.dumps(name)}: {self._json_value(value)}" for name, value in pairs) + "}\n"

    def _json_value(self, value: Any) -> str:
        if value is None:
            return "null"
        if self._as_text:
            return str(value)  # the server's to_json
        return json.dumps(_hex(value) if isinstance(value, bytes) else value, ensure_ascii=False)


@contextlib.contextmanager
def open_archive(path: Path, dialect: str, columns: Sequence[str]) -> Iterator[Archive]:
    """Open the archive, making it and its directory entry durable; raises JobError when it cannot be, or is in use."""
    with open_appended(path, "archive") as file:
        yield Archive(file, dialect, columns)


def _csv_field(value: Any) -> str:
    """Return the field as COPY reads it back: NULL is nothing, an empty text is quoted."""
    if value is None:
        return ""
    written = _hex(value) if isinstance(value, bytes) else str(value)
    if written and not any(special in written for special in ',"\n\r') and written != "\\.":
        return written
    return '"' + written.replace('"', '""') + '"'


def _hex(value: bytes) -> str:
    return "\\x" + value.hex()
