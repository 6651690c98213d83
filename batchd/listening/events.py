"""What a row of the outbox is to a listener."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchd.domain.run import RunState
from batchd.listeners import Event, EventName
from batchd.store.outbox import Notice

_NAMES = {
    "run.started": EventName.STARTED,
    "run.progressed": EventName.PROGRESSED,
    "run.retrying": EventName.RETRIED,
    "run.cancelled": EventName.DISCARDED,
    "run.discarded": EventName.DISCARDED,
    "run.skipped": EventName.DISCARDED,
    "run.quarantined": EventName.FAILED,
    "run.missed": EventName.MISSED,
}
_BY_STATE = {
    RunState.SUCCEEDED.value: EventName.SUCCEEDED,
    RunState.FAILED.value: EventName.FAILED,
    RunState.CANCELLED.value: EventName.DISCARDED,
}
_FINAL = frozenset(state.value for state in RunState if state.is_final)
_BY_STATE_EVENTS = frozenset({"run.finished", "run.lost"})
_ASIDE = frozenset({"job", "kind", "queue", "state", "reason", "attempt", "error"})


def event_of(notice: Notice) -> Event | None:
    """Return the event, or None for a row that no listener can listen to."""
    given: Any = notice.payload
    said: Mapping[str, Any] = given if isinstance(given, Mapping) else {}  # somebody may have edited the row
    name = _BY_STATE.get(str(said.get("state"))) if notice.event in _BY_STATE_EVENTS else _NAMES.get(notice.event)
    if name is None or notice.run_id is None:
        return None
    is_final_still = notice.state == said.get("state") and notice.state in _FINAL
    return Event(
        id=notice.id,
        name=name,
        at=notice.created_at,
        run_id=notice.run_id,
        job=notice.schedule_id,
        kind=_text(said.get("kind")) or notice.kind,
        queue=_text(said.get("queue")) or notice.queue,
        state=_text(said.get("state")),
        reason=_text(said.get("reason")),
        attempt=said.get("attempt") if isinstance(said.get("attempt"), int) else None,
        error=_text(said.get("error")),
        result=notice.result if is_final_still else None,
        details={key: value for key, value in said.items() if key not in _ASIDE},
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
