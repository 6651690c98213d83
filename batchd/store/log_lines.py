"""A run's own log lines, in the store for `batchd show`: bounded per run, never in the way of the job."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from batchd.db.engine import Database
from batchd.db.storable import storable_json, storable_text
from batchd.domain.job import JsonObject
from batchd.store.schema import log_lines, runs

MOST_LINES = 500
"""Lines kept of one run in one daemon; the last says that there were more."""

_MOST_WAITING = 5_000
_MOST_RUNS = 2_000
_BATCH = 500
_ASIDE = frozenset({"ts", "level", "event", "msg", "run_id", "job"})


class LineBuffer:
    """Collects lines from any thread; `write` sends them to the store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[Mapping[str, Any]] = deque()
        self._counts: OrderedDict[int, int] = OrderedDict()
        self.dropped = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Keep one masked line of a run, which nobody changes any more; beyond the bounds it is counted and dropped."""
        run_id = line.get("run_id")
        if not isinstance(run_id, int):
            return
        with self._lock:
            if len(self._counts) > _MOST_RUNS:
                self._counts.popitem(last=False)  # a dict would look through all places that have been left
            count = self._counts[run_id] = self._counts.get(run_id, 0) + 1
            if count > MOST_LINES:
                return
            if len(self._lines) >= _MOST_WAITING:
                self.dropped += 1
                return
            self._lines.append(line if count < MOST_LINES else {**line, "truncated": True})

    def take(self) -> list[Mapping[str, Any]]:
        """Return and forget the oldest lines."""
        with self._lock:
            return [self._lines.popleft() for _ in range(min(_BATCH, len(self._lines)))]

    def give_back(self, lines: list[Mapping[str, Any]]) -> None:
        """Put lines back that could not be written."""
        with self._lock:
            self._lines.extendleft(reversed(lines))

    def drop(self, lines: list[Mapping[str, Any]]) -> None:
        """Count lines that the store refuses as dropped."""
        with self._lock:
            self.dropped += len(lines)

    def take_dropped(self) -> int:
        """Return and forget how many lines were dropped."""
        with self._lock:
            dropped, self.dropped = self.dropped, 0
            return dropped


def write(store: Database, lines: list[Mapping[str, Any]]) -> None:
    """Write the lines in one transaction; those of runs that no longer exist are left out."""
    with store.writing() as connection:
        ids = {line["run_id"] for line in lines}
        known = set(connection.execute(select(runs.c.id).where(store.dialect.is_among(runs.c.id, ids))).scalars())
        rows = [
            {
                "run_id": line["run_id"],
                "at": datetime.fromisoformat(line["ts"]),
                "level": line["level"],
                "event": storable_text(str(line["event"])),
                "message": storable_text(str(line["msg"])),
                "fields": storable_json(_aside(line)),
            }
            for line in lines
            if line["run_id"] in known
        ]
        store.dialect.insert_all(connection, log_lines, rows)


def _aside(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in _ASIDE}


@dataclass(frozen=True, slots=True)
class StoredLine:
    """One row of `batchd_log_lines`."""

    id: int
    at: datetime
    level: str
    event: str
    message: str
    fields: JsonObject


def lines_after(store: Database, run_id: int, *, after_id: int = 0, limit: int = 200) -> tuple[StoredLine, ...] | None:
    """Return a run's lines behind one of them, oldest first; None when there is no such run."""
    columns = [log_lines.c[name] for name in StoredLine.__slots__]
    statement = select(*columns).where(log_lines.c.run_id == run_id, log_lines.c.id > after_id)
    with store.reading() as connection:
        found = tuple(
            StoredLine(**row) for row in connection.execute(statement.order_by(log_lines.c.id).limit(limit)).mappings()
        )
        is_known = found or connection.execute(select(runs.c.id).where(runs.c.id == run_id)).first() is not None
    return found if is_known else None
