"""A folder that others put files into: which of them are complete, and where they go when they are done with."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from batchd.errors import JobError
from batchd.jobs.csv_import.sources import FileFacts, facts_of

MOST_FILES = 200
"""Files of one run; the next run takes the others. The checkpoint holds their names."""

_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".filepart", ".swp", ".lock", "~")
_WRITING = (os.O_WRONLY, os.O_RDWR)
_WILDCARDS = frozenset("*?[")


def is_pattern(path: str) -> bool:
    """Whether the path names any number of files."""
    return not _WILDCARDS.isdisjoint(path)


def files_of(pattern: str, aside: Iterable[str]) -> list[Path]:
    """Return the files that the pattern names, by name; no hidden or temporary ones, none in the folders `aside`."""
    head, tail = _split(pattern)
    found = (path for path in head.glob(tail) if path.is_file())
    skipped = set(aside)
    return sorted(
        path
        for path in found
        if not path.name.startswith(".")
        and not path.name.lower().endswith(_UNFINISHED)
        and skipped.isdisjoint(parent.name for parent in path.relative_to(head).parents)
    )


def settled(paths: Iterable[Path], settle: timedelta, now: datetime) -> list[FileFacts]:
    """Return the files that nobody writes any more: unchanged for `settle`, and open for writing in no process.

    A time stamp in the future counts as just now. Processes of other users can be seen by root only.
    """
    still = []
    for path in paths:
        with suppress(JobError):  # it was taken away meanwhile
            facts = facts_of(path)
            assert facts.modified_ns is not None
            if now.timestamp() - facts.modified_ns / 1e9 >= settle.total_seconds():
                still.append(facts)
    written = _open_for_writing({facts.name for facts in still}) if still else frozenset()
    return [facts for facts in still if facts.name not in written]


def put_away(path: Path, folder: str, run_id: int) -> Path | None:
    """Move the file into a folder beside it and return where it is; None when it is gone already.

    A name that is taken gets the run's id.
    """
    target = path.parent / folder
    try:
        target.mkdir(exist_ok=True)
        place = target / path.name
        if place.exists():
            stem, dot, rest = path.name.partition(".")
            place = target / f"{stem}.run{run_id}{dot}{rest}"
        try:
            path.rename(place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.move(path, place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JobError(
            f"{path} was imported, but cannot be moved to {target}: {error.strerror}",
            hint="give the daemon's user the right to write there; a retry only moves it",
        ) from error
    return place


def _split(pattern: str) -> tuple[Path, str]:
    """Return the folder before the first wildcard and the pattern within it."""
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if is_pattern(part))
    return Path(*parts[:first]), str(Path(*parts[first:]))


def _open_for_writing(names: set[str]) -> frozenset[str]:
    """Return which of the files some process has open for writing, as far as /proc shows it to this user."""
    real = {os.path.realpath(name): name for name in names}
    found = set()
    for link in _descriptors():
        try:
            target = os.readlink(link)  # noqa: PTH115 (thousands of names: no objects)
            if target in real and _is_writing(link):
                found.add(real[target])
        except OSError:
            continue  # the process or its descriptor is gone, or somebody else's
    return frozenset(found)


def _descriptors() -> Iterator[str]:
    for process in Path("/proc").iterdir() if Path("/proc/self/fd").exists() else ():
        if process.name.isdecimal():
            with suppress(OSError):
                for name in os.listdir(process / "fd"):  # noqa: PTH208 (thousands of names: no objects)
                    yield f"{process}/fd/{name}"


def _is_writing(link: str) -> bool:
    info = Path(link.replace("/fd/", "/fdinfo/")).read_text()
    flags = next(line.split()[1] for line in info.splitlines() if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE in _WRITING
