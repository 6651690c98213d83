"""A file that is whole or not there: written beside its place under a temporary name, synced, and renamed.

The writer holds a lock on its part, so that a part without a lock is one that a dead process left behind. A resumable
part has a note beside it, which says how much of it counts; what lies beyond came after the last note and is cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.exports.version import version_of

_PART = ".part"
_MODE = 0o640


class PartFile:
    """An open part, locked against other processes. For one thread."""

    def __init__(self, file: BinaryIO, path: Path, final: Path) -> None:
        self.path = path
        self.final = final
        self._file = file

    @property
    def size_bytes(self) -> int:
        """Its length."""
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def write(self, data: bytes) -> None:
        """Add to its end."""
        self._file.write(data)

    def sync(self) -> int:
        """Wait until all of it is on the disk and return its length."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.size_bytes

    def cut_to(self, size: int) -> None:
        """Drop what lies beyond; raises JobError when it is shorter."""
        if self.size_bytes < size:
            raise JobError(
                f"{self.path} has {self.size_bytes} bytes, but {size} were written before",
                hint="somebody cut it; remove it and its note, and the export begins anew",
                retryable=False,
            )
        self._file.truncate(size)
        self._file.seek(size)

    def publish(self, *, replace: bool) -> str:
        """Give it its real name, durably, and return its version; raises JobError when the name is taken."""
        self.sync()
        version = version_of(os.fstat(self._file.fileno()))
        if replace:
            self.path.replace(self.final)
        else:
            try:
                self.final.hardlink_to(self.path)
            except FileExistsError as error:
                raise JobError(
                    f"{self.final} exists already", hint='set if_exists = "replace", or put {date} into the name'
                ) from error
            self.path.unlink()
        _sync_folder(self.final.parent)
        return version


@contextlib.contextmanager
def fresh_part(final: Path) -> Iterator[PartFile]:
    """Open a new part, which goes unless it is published; removes what dead processes left of the same file."""
    with _told(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(final)
        path = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}{_PART}")
        try:
            with _locked(path, final, os.O_EXCL) as part:
                yield part
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def resumable_part(final: Path, run_id: int) -> Iterator[PartFile]:
    """Open the run's part, old or new; it stays when the block raises."""
    with _told(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        with _locked(final.with_name(f".{final.name}.run-{run_id}{_PART}"), final, 0) as part:
            _sync_folder(final.parent)
            yield part


class Note:
    """What a resumable export must remember, beside its part: replaced as a whole, after the part was synced."""

    def __init__(self, folder: Path, job: str, run_id: int) -> None:
        self._path = folder / f".{job}.run-{run_id}.note"

    def read(self) -> JsonObject | None:
        """Return what was noted last, or None."""
        try:
            noted: JsonObject = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return noted

    def write(self, noted: JsonObject) -> None:
        """Replace it, durably."""
        new = self._path.with_name(self._path.name + ".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(noted, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        _sync_folder(self._path.parent)

    def remove(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)


def _remove_abandoned(final: Path) -> None:
    for path in final.parent.glob(f".{_escaped(final.name)}.*{_PART}"):
        if ".run-" in path.name[len(final.name) + 1 :]:
            continue  # a resumable one may go on yet
        with contextlib.suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, final: Path, flags: int) -> Iterator[PartFile]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, _MODE)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JobError(f"{path} is being written by somebody else", hint="give each job its own file") from error
        file.seek(0, os.SEEK_END)
        yield PartFile(file, path, final)


@contextlib.contextmanager
def _told(final: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JobError(f"{final} cannot be written: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
