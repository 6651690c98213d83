"""One batch of rows in a job's hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from batchd.db.row_source import Row
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.store.rejects import Reject


@dataclass(slots=True)
class Batch:
    """Rows that follow each other, and the transaction in which the batch's checkpoint will be saved.

    `counts` are added to those of the run's other batches when the batch is done: what a job did with the rows.
    `rejects` are kept with it.
    """

    found: Sequence[Row]
    open_connection: Connection | None
    counts: dict[str, int | float] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows, each as a dict of its columns."""
        return [dict(row.values) for row in self.found]

    @property
    def connection(self) -> Connection:
        """The transaction that commits with the batch's checkpoint; raises JobError in a walk without one."""
        if self.open_connection is None:
            raise JobError("this walk holds no transaction: it was begun with transaction=False", retryable=False)
        return self.open_connection

    def count(self, name: str, by: float = 1) -> None:
        """Add to one of the counts, which the run's result may show."""
        self.counts[name] = self.counts.get(name, 0) + by


@dataclass(frozen=True, slots=True)
class WalkResult:
    """How far a walk has come, all attempts of the run together."""

    rows: int
    batches: int
    counts: JsonObject
