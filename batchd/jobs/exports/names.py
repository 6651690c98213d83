"""Names of exported files: what they say of the format, when they were made, and which of them are old ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from batchd.jobs.exports.packing import SUFFIXES

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".xlsx": "xlsx",
    ".parquet": "parquet",
}
_PLACES = {"date": r"\d{4}-\d{2}-\d{2}", "time": r"\d{6}", "run_id": r"\d+", "job": None}
_PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class NamedFormat:
    """What a name's ending says."""

    format: str
    compression: str | None


def format_of(name: str) -> NamedFormat:
    """Return the format that the name ends in; raises ValueError with advice."""
    *_, before, ending = ("", "", *(suffix.lower() for suffix in Path(name).suffixes))
    compression = SUFFIXES.get(ending)
    found = FORMATS.get(ending if compression is None else before)
    if found is None:
        raise ValueError(f"must end in one of {', '.join(FORMATS)}, with .gz or .zst behind it for a packed text file")
    if compression is not None and found in {"xlsx", "parquet"}:
        raise ValueError(f"{found} is packed already; leave {ending} out")
    return NamedFormat(found, compression)


def check_places(path: Path) -> None:
    """Raise ValueError for a place that does not exist, or that stands in a folder's name."""
    if _PLACE.search(str(path.parent)):
        raise ValueError("has a place in the name of a folder; they belong into the file's name")
    for place in _PLACE.findall(path.name):
        if place not in _PLACES:
            raise ValueError(f"has a place {{{place}}}; there are {', '.join(f'{{{each}}}' for each in _PLACES)}")


def file_at(template: Path, *, moment: datetime, run_id: int, job: str) -> Path:
    """Return the file of a run; the moment is told in UTC."""
    values = {"date": f"{moment:%Y-%m-%d}", "time": f"{moment:%H%M%S}", "run_id": str(run_id), "job": job}
    return Path(_PLACE.sub(lambda place: values[place[1]], str(template)))


def has_moving_places(template: Path) -> bool:
    """Whether each run has a file of its own."""
    return any(_PLACES.get(place) for place in _PLACE.findall(template.name))


def old_files(
    template: Path, *, job: str, newest: Path, keep: int | None, keep_for: timedelta | None, now: datetime
) -> list[Path]:
    """Return the exports that may go: not among the `keep` newest, or older than `keep_for`; never the newest.

    Only files beside it whose names are exactly such as the template makes.
    """
    pattern = re.compile(pattern_of(template.name, job=job))
    found: Mapping[Path, float] = {
        path: path.stat().st_mtime
        for path in newest.parent.iterdir()
        if pattern.fullmatch(path.name) and path != newest and path.is_file() and not path.is_symlink()
    }
    by_age = sorted(found, key=lambda path: found[path], reverse=True)
    doomed = set() if keep is None else set(by_age[max(keep - 1, 0) :])
    if keep_for is not None:
        oldest = (now - keep_for).timestamp()
        doomed |= {path for path in by_age if found[path] < oldest}
    return sorted(doomed)


def pattern_of(name: str, *, job: str) -> str:
    """Return the regular expression of the names that the template makes for a job."""
    parts, position = [], 0
    for place in _PLACE.finditer(name):
        parts.append(re.escape(name[position : place.start()]))
        parts.append(_PLACES.get(place[1]) or re.escape(job))
        position = place.end()
    return "".join([*parts, re.escape(name[position:])])
