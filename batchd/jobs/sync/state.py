"""How far a run has come, all its attempts together: what its checkpoint holds."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from batchd.domain.job import JsonObject, JsonValue
from batchd.jobs.sync.answers import Spent


class Phase(enum.StrEnum):
    """What is being done."""

    FETCH = "fetch"
    WRITE = "write"
    DONE = "done"


class Step(enum.IntEnum):
    """What is to be done with a row, in the order in which it is.

    Removals first: what is new may need a unique value that a row which goes still holds.
    """

    REMOVE = 0
    CHANGE = 1
    ADD = 2
    TOUCH = 3


@dataclass(frozen=True, slots=True)
class SyncState:
    """Immutable; each step gives a new one.

    `began` is when this fetch began; `mark` what it is a fetch of. `place` is where the next page is. `staged` rows are
    in the staging table, `unkeyed` records were rejected without a key by which their row could be told. `kept` rejects
    are in the table, those of a fetch that was given up included. `floor` is the progress that was reported before this
    fetch began. `step` and `after` say how far the list of what is to do is done.
    """

    phase: Phase
    began: str
    is_full: bool
    mark: str | None
    place: JsonObject | None = None
    pages: int = 0
    fetched: int = 0
    staged: int = 0
    rejected: int = 0
    unkeyed: int = 0
    kept: int = 0
    duplicates: int = 0
    floor: int = 0
    watermark: str | None = None
    validators: JsonObject = field(default_factory=dict)
    is_not_modified: bool = False
    planned: JsonObject = field(default_factory=dict)
    columns: JsonObject = field(default_factory=dict)
    examples: JsonObject = field(default_factory=dict)
    missing: int = 0
    step: int = 0
    after: int = 0
    done: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    touched: int = 0
    requests: int = 0
    retries: int = 0
    bytes: int = 0
    seconds: float = 0.0

    @property
    def began_at(self) -> datetime:
        """Return when the fetch began."""
        return datetime.fromisoformat(self.began)

    @property
    def to_do(self) -> int:
        """Return how many rows the write has to look at."""
        return sum(count for count in self.planned.values() if isinstance(count, int))

    def spending(self, spent: Spent, seconds: float) -> SyncState:
        """Return the state with what was spent since the last one."""
        return replace(
            self,
            requests=self.requests + spent.requests,
            retries=self.retries + spent.retries,
            bytes=self.bytes + spent.bytes,
            seconds=self.seconds + seconds,
        )

    def begun_anew(self, began: datetime, *, is_full: bool, mark: str | None) -> SyncState:
        """Return the state of a fetch from the beginning; what was written and spent already still counts."""
        return replace(
            SyncState(Phase.FETCH, began.isoformat(), is_full, mark),
            kept=self.kept,
            floor=max(self.floor, self.floor + self.fetched + self.done),
            added=self.added,
            changed=self.changed,
            removed=self.removed,
            touched=self.touched,
            columns=self.columns,
            requests=self.requests,
            retries=self.retries,
            bytes=self.bytes,
            seconds=self.seconds,
        )

    def as_json(self) -> JsonObject:
        """Return it for a checkpoint."""
        found: JsonObject = {each.name: _json(getattr(self, each.name)) for each in fields(self)}
        return found


def state_from_json(saved: JsonObject) -> SyncState:
    """Return what `as_json` made."""
    values: dict[str, Any] = dict(saved)
    values["phase"] = Phase(values["phase"])
    return SyncState(**values)


def _json(value: Any) -> JsonValue:
    plain: JsonValue = value.value if isinstance(value, enum.Enum) else value
    return plain
