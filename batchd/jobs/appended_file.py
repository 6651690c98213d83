"""A file that grows with a job's chunks: appended and synced before each chunk commits, cut back where one did not.

The checkpoint that commits with the chunk holds the file's length. Whatever lies beyond it belongs to a chunk that
never committed, and is cut off before the next write: so each chunk's part is there exactly once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from batchd.errors import JobError


class AppendedFile:
    """An open file, locked against other processes. `what` it is stands in messages. For one thread."""

    def __init__(self, file: BinaryIO, path: Path, what: str) -> None:
        self.path = path
        self._file = file
        self._what = what

    @property
    def size_bytes(self) -> int:
        """The file's length."""
        return os.fstat(self._file.fileno()).st_size

    def cut_to(self, offset: int) -> None:
        """Drop what lies beyond `offset`; raises JobError when the file is shorter: something of it is missing."""
        size = self.size_bytes
        if size < offset:
            raise JobError(
                f"{self._what} {self.path} has {size} bytes, but {offset} were written before",
                hint="somebody moved or cut it; put it back, or start a new run",
                retryable=False,
            )
        if size > offset:
            self._file.truncate(offset)
            os.fsync(self._file.fileno())

    def append(self, data: bytes, offset: int) -> None:
        """Write the data at `offset` and wait until it is on the disk."""
        if not data:
            return
        self._file.seek(offset)
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())


@contextlib.contextmanager
def open_appended(path: Path, what: str) -> Iterator[AppendedFile]:
    """Open the file, making it and its directory entry durable; raises JobError when it cannot be, or is in use."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise JobError(f"{what} {path} cannot be opened: {error.strerror}") from error
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JobError(f"{what} {path} is being written by somebody else", hint="give each job its own") from error
        _sync_directory(path.parent)
        yield AppendedFile(file, path, what)


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
