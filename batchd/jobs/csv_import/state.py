"""How far an import has come, as the checkpoint holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from batchd.domain.job import JsonObject
from batchd.jobs.csv_import.content import Resume
from batchd.jobs.csv_import.formats import CsvFormat, format_from_json
from batchd.jobs.csv_import.sources import FileFacts
from batchd.jobs.csv_import.writing import Written


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the records, of all files and attempts together."""

    records: int = 0
    inserted: int = 0
    updated: int = 0
    skipped: int = 0
    rejected: int = 0

    def plus(self, records: int, written: Written, rejected: int) -> Tally:
        """Return the tally after a chunk."""
        return Tally(
            self.records + records,
            self.inserted + written.inserted,
            self.updated + written.updated,
            self.skipped + written.skipped,
            self.rejected + rejected,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """How far one source was read. `rejected` counts its own bad records, `reject_bytes` is their file's length."""

    form: CsvFormat
    header: tuple[str, ...]
    resume: Resume
    line: int
    read_bytes: int
    rejected: int = 0
    reject_bytes: int = 0
    is_finished: bool = False


@dataclass(frozen=True, slots=True)
class ImportState:
    """The whole run: its sources, fixed by the first attempt, which of them is at hand, and how far it was read.

    `now` is the run's moment for computed columns; `done_bytes` is what the finished sources had.
    """

    sources: tuple[FileFacts, ...]
    now: str
    at: int = 0
    place: Place | None = None
    tally: Tally = Tally()
    done_bytes: int = 0
    failed: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all sources; None when one does not say."""
        sizes = [source.size for source in self.sources]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def next_source(self, read_bytes: int, *failed: str) -> ImportState:
        """Return the state before the next source."""
        size = self.sources[self.at].size
        done = self.done_bytes + (read_bytes if size is None else size)
        return replace(self, at=self.at + 1, place=None, done_bytes=done, failed=(*self.failed, *failed))

    def as_json(self) -> JsonObject:
        """Return it for the checkpoint."""
        place = self.place
        return {
            "sources": [source.as_json() for source in self.sources],
            "now": self.now,
            "at": self.at,
            "place": None if place is None else {**asdict(place), "form": place.form.as_json()},
            "tally": asdict(self.tally),
            "done_bytes": self.done_bytes,
            "failed": list(self.failed),
        }


def state_from_json(saved: JsonObject) -> ImportState:
    """Return what `as_json` made."""
    values: dict[str, Any] = dict(saved)
    place = values["place"]
    if place is not None:
        form, header, resume = format_from_json(place["form"]), tuple(place["header"]), Resume(**place["resume"])
        place = Place(**{**place, "form": form, "header": header, "resume": resume})
    return ImportState(
        sources=tuple(FileFacts(**source) for source in values["sources"]),
        now=values["now"],
        at=values["at"],
        place=place,
        tally=Tally(**values["tally"]),
        done_bytes=values["done_bytes"],
        failed=tuple(values["failed"]),
    )
