"""What every source of records has in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from batchd.domain.job import JsonObject
from batchd.jobs.sync.answers import Spent


@dataclass(frozen=True, slots=True)
class BadLine:
    """A record that could not even be read, and why; stands among the records of a page."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, in the source's order. `after` is where the next page is, None behind the last one.

    `total` is how many records the source says there are in all; `count` is how many of its pages these were.
    """

    records: Sequence[Any]
    after: JsonObject | None
    total: int | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known once the first page is there: what to send next time, and whether nothing has changed since."""

    validators: JsonObject = field(default_factory=dict)
    is_not_modified: bool = False


class Source(Protocol):
    """Where records come from. For the attempt's thread.

    `name` is for messages and rejects. `mark` changes when what an earlier attempt has fetched does not go together
    with what would be fetched now; None says that nothing ever does, so that each attempt begins anew.
    """

    name: str
    facts: SourceFacts

    @property
    def mark(self) -> str | None: ...  # noqa: D102

    def pages(self, place: JsonObject | None) -> Iterator[Page]:
        """Yield pages from the place on, None being the beginning; raises JobError and RunInterrupted."""
        ...

    def taken(self) -> Spent:
        """Return what was spent since the last call."""
        ...

    def close(self) -> None:
        """Give everything back; never raises."""
        ...
