"""What a listener gets, written once for all of them: server-sent events, as the HTML standard writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batchd.domain.position import Position
from batchd.domain.run import RunState
from batchd.store.feed import Happening, Placed, Sort

HEARTBEAT = b": hb\n\n"
_LONGEST_ERROR = 2_000
_OF_STATE = frozenset({"job", "kind", "queue", "state", "reason", "attempt", "error"})
_FINAL = frozenset(state.value for state in RunState if state.is_final)


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as bytes, and what filters go by. `final_state` is set where it says that its run has ended."""

    sort: Sort
    event: str
    run_id: int | None
    job: str | None
    queue: str | None
    content: bytes
    state: str | None = None

    @property
    def is_end_of_run(self) -> bool:
        """Whether it says that its run has come to a final state."""
        return self.sort is Sort.STATE and self.state in _FINAL


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which frames a listener wants; an empty set lets all through. `events` are sorts, or names of state changes."""

    run_id: int | None = None
    jobs: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()

    def takes(self, frame: Frame) -> bool:
        """Whether the listener wants it."""
        return (
            (self.run_id is None or frame.run_id == self.run_id)
            and (not self.jobs or frame.job in self.jobs)
            and (not self.queues or frame.queue in self.queues)
            and (not self.events or frame.sort.value in self.events or frame.event in self.events)
        )


def frame_of(placed: Placed) -> Frame:
    """Return the frame of a state change or a log line."""
    happening = placed.happening
    data = _line(happening) if happening.sort is Sort.LOG else _change(happening)
    return Frame(
        sort=happening.sort,
        event=happening.event,
        run_id=happening.run_id,
        job=happening.job,
        queue=happening.queue,
        content=message(happening.sort.value, data, position=placed.position),
        state=data.get("state"),
    )


def progress_frame(happening: Happening, *, rate: float | None = None) -> Frame:
    """Return the frame of how far a run is; `rate` is per second."""
    done, total = happening.done, happening.total
    left = None if total is None or done is None else max(0, total - done)
    data = {
        **_of_run(happening),
        **happening.facts,
        "at": happening.at,
        **_progress(happening),
        "rate_per_second": rate,
        "eta_seconds": round(left / rate, 1) if left is not None and rate else None,
    }
    return Frame(
        sort=Sort.PROGRESS,
        event=happening.event,
        run_id=happening.run_id,
        job=happening.job,
        queue=happening.queue,
        content=message(Sort.PROGRESS.value, data),
    )


def message(event: str, data: Mapping[str, Any], *, position: Position | None = None) -> bytes:
    """Return one server-sent event. JSON has no line ends outside of escapes, so its data is one line."""
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=_as_text)
    place = "" if position is None else f"id: {position}\n"
    return f"{place}event: {event}\ndata: {written}\n\n".encode(errors="replace")


def moved_to(position: Position) -> bytes:
    """Return what moves a client's `Last-Event-ID` and is no event."""
    return f"id: {position}\n\n".encode()


def retry_after(milliseconds: int) -> bytes:
    """Return what tells a client how long to wait before it comes back."""
    return f"retry: {milliseconds}\n\n".encode()


def _change(happening: Happening) -> dict[str, Any]:
    said = happening.facts
    error = said.get("error")
    return {
        "event": happening.event,
        "at": happening.at,
        **_of_run(happening),
        **{name: said.get(name) for name in ("state", "reason", "attempt")},
        "error": error[:_LONGEST_ERROR] if isinstance(error, str) else None,
        "progress": None if happening.done is None else _progress(happening),
        "details": {key: value for key, value in said.items() if key not in _OF_STATE},
    }


def _line(happening: Happening) -> dict[str, Any]:
    return {"line": happening.id, "at": happening.at, **_of_run(happening), "event": happening.event, **happening.facts}


def _of_run(happening: Happening) -> dict[str, Any]:
    return {
        "run_id": happening.run_id,
        "job": happening.job,
        "kind": happening.kind,
        "queue": happening.queue,
    }


def _progress(happening: Happening) -> dict[str, Any]:
    done, total = happening.done, happening.total
    percent = None if not total or done is None else round(min(100.0, 100.0 * done / total), 1)
    return {"done": done, "total": total, "percent": percent, "note": happening.note}


def _as_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
