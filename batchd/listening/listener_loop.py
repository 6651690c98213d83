"""Delivers events to one listener, in order and at least once."""

from __future__ import annotations

import asyncio
import inspect
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.listeners import Event, EventName, Listener
from batchd.listening.events import event_of
from batchd.loop import Leaseholders, Loop
from batchd.store import listeners
from batchd.store.listeners import Held, Registration
from batchd.store.outbox import Notice, Reader
from batchd.store.place import TRY_TO_TAKE, Place

_BATCH = 200
_POLL = timedelta(seconds=0.5)
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=5)


class ListenerLoop(Loop):
    """One thread for one listener. Nothing that the listener does ends it, or reaches another."""

    def __init__(self, store: Database, listener: Listener, worker_id: str, clock: Clock) -> None:
        super().__init__(f"listener {listener.name}", clock)
        self._listener = listener
        self._reader = Reader(store)
        self._place = Place(store, registration(listener), worker_id, clock, self._taken)
        self._failures = 0

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Deliver what there is; return how long to wait, longer and longer while the listener raises."""
        if not self._place.hold():
            return TRY_TO_TAKE
        notices = self._reader.after(self._place.last_id, _BATCH)
        for notice in notices:
            # A place that was lost and taken again during a call may be further than what was read for it.
            if self.is_stopping or not self._place.hold() or notice.id <= self._place.last_id:
                break
            pause = self._deliver(notice)
            if pause is not None:
                return pause
        self._place.save(at_once=True)
        return timedelta(0) if len(notices) == _BATCH else _POLL

    def close(self) -> None:
        """Let another daemon have the listener at once; call it when the thread has ended."""
        self._place.give_up()

    def _taken(self, held: Held) -> None:
        self._failures = held.failures

    def _deliver(self, notice: Notice) -> timedelta | None:
        """Call the listener; return how long to wait when it raised, None when the event is done with."""
        event = event_of(notice)
        if event is not None and self._listener.wants(event):
            try:
                self._call(event)
            except Exception as error:  # noqa: BLE001 (a team's own code)
                if not self._is_given_up(event, error):
                    return self._put_off(event, error)
            self._recovered(event)
        self._place.last_id = notice.id
        self._place.save()
        return None

    def _call(self, event: Event) -> None:
        answer = self._listener.function(event)
        if inspect.iscoroutine(answer):
            asyncio.run(answer)

    def _is_given_up(self, event: Event, error: Exception) -> bool:
        limit = self._listener.give_up_after
        if limit is None or self._failures + 1 < limit:
            return False
        self._log.error(
            "listener.gave_up", listener=self._listener.name, event_id=event.id, tries=limit, exc_info=error
        )
        return True

    def _put_off(self, event: Event, error: Exception) -> timedelta:
        self._failures += 1
        pause = min(_FIRST_PAUSE * (1 << min(self._failures - 1, 10)), _LONGEST_PAUSE)
        self._log.error(
            "listener.failed",
            listener=self._listener.name,
            event_id=event.id,
            failures=self._failures,
            retry_in_s=pause.total_seconds(),
            exc_info=error,
        )
        said = f"event {event.id} ({event.name}): {type(error).__name__}: {error}"
        self._place.note_failure(self._failures, said)
        return pause

    def _recovered(self, event: Event) -> None:
        if self._failures:
            self._log.info(
                "listener.recovered", listener=self._listener.name, event_id=event.id, failures=self._failures
            )
            self._failures = 0
            self._place.mark_stale()


def registration(listener: Listener) -> Registration:
    """Return the listener as the store knows it."""
    return Registration(
        listener.name,
        ", ".join(sorted(listener.events)),
        wants_started=EventName.STARTED in listener.events,
        wants_progressed=EventName.PROGRESSED in listener.events,
    )


class Listening(Leaseholders):
    """All listeners of this daemon; `start`, `stop` and `is_alive` as of one loop."""

    name = "listening"

    def __init__(self, store: Database, wanted: tuple[Listener, ...], worker_id: str, clock: Clock) -> None:
        self._store = store
        self._wanted = wanted
        self._listening = [ListenerLoop(store, listener, worker_id, clock) for listener in wanted]

    @property
    def _loops(self) -> list[ListenerLoop]:
        return self._listening

    def prepare(self) -> None:
        """Make the listeners known to the store; may be called again when that failed."""
        listeners.register(self._store, [registration(listener) for listener in self._wanted])
