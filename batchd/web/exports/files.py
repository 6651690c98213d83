"""The only place that opens a file for the network: one of an export's own, or none."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from batchd.jobs.exports.names import FORMATS
from batchd.jobs.exports.packing import SUFFIXES
from batchd.jobs.exports.version import version_of

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ENDINGS = "|".join(re.escape(ending) for ending in FORMATS)
_PACKED = "|".join(re.escape(ending) for ending in SUFFIXES)
_PART = re.compile(r"\.(?P<final>.+)\.(?:[0-9a-f]{12}|run-\d+)\.part")
_OF_SOURCE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]*-\d+(?:{_ENDINGS})(?:{_PACKED})?", re.ASCII)


class NotServed(Exception):
    """The file is not there, or is not what it should be; the message is for a person, and names no path."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of exports that the config names, a file's name in it, and which version of it was exported."""

    folder: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class ExportFile:
    """An open file. Whoever has it closes it."""

    descriptor: int
    name: str
    size: int
    version: str

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def read(self, count: int, at: int) -> bytes:
        """Return bytes from a place; fewer only at its end."""
        return os.pread(self.descriptor, count, at)


def open_export(place: Place) -> ExportFile:
    """Open the very file that was exported; raises NotServed for any other, whatever it is and how it came there."""
    if "/" in place.name or "\0" in place.name or place.name in {"", ".", ".."}:
        raise NotServed("the export names no file")
    try:
        folder = os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotServed("the folder of exports is not there") from error
    try:
        descriptor = os.open(place.name, _OPEN, dir_fd=folder)
    except OSError as error:
        raise NotServed("the file is not there: retention took it, or another machine has it") from error
    finally:
        os.close(folder)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or version_of(facts) != place.version:
        os.close(descriptor)
        raise NotServed("another file is in the place of the exported one")
    return ExportFile(descriptor, place.name, facts.st_size, place.version)


def remove_old(folder: str, keep_for: timedelta, now: datetime) -> tuple[str, ...]:
    """Remove the files of sources that are older than `keep_for`, parts of runs that died too; return their names.

    Only what is called as they are, in this folder and no other; a link is removed, never what it points to.
    """
    oldest = (now - keep_for).timestamp()
    removed = []
    with _opened(folder) as descriptor:
        if descriptor is None:
            return ()
        with os.scandir(descriptor) as entries:
            names = [entry.name for entry in entries if _is_export(entry.name)]
        for name in names:
            with contextlib.suppress(OSError):
                facts = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode) or facts.st_mtime >= oldest:
                    continue
                os.unlink(name, dir_fd=descriptor)
                removed.append(name)
    return tuple(sorted(removed))


def _is_export(name: str) -> bool:
    part = _PART.fullmatch(name)
    return _OF_SOURCE.fullmatch(part["final"] if part else name) is not None


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int | None]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
