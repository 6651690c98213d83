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
from batchd.store.leased import LEASE
from batchd.store.listeners import Held, Registration
from batchd.store.outbox import Notice, Reader

_BATCH = 200
_POLL = timedelta(seconds=0.5)
_TRY_TO_TAKE = timedelta(seconds=5)
_SAVE_EVERY = timedelta(seconds=1)
"""After a crash at most so much of what was delivered comes again."""

_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=5)


class ListenerLoop(Loop):
    """One thread for one listener. Nothing that the listener does ends it, or reaches another."""

    def __init__(self, store: Database, listener: Listener, worker_id: str, clock: Clock) -> None:
        super().__init__(f"listener {listener.name}", clock)
        self._store = store
        self._listener = listener
        self._worker_id = worker_id
        self._reader = Reader(store)
        self._held: Held | None = None
        self._renew_at = 0.0
        self._last_id = 0
        self._failures = 0
        self._saved_id = 0
        self._save_at = 0.0

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Deliver what there is; return how long to wait, longer and longer while the listener raises."""
        if not self._hold():
            return _TRY_TO_TAKE
        notices = self._reader.after(self._last_id, _BATCH)
        for notice in notices:
            if self.is_stopping or not self._hold():
                break
            pause = self._deliver(notice)
            if pause is not None:
                return pause
        self._save()
        return timedelta(0) if len(notices) == _BATCH else _POLL

    def close(self) -> None:
        """Let another daemon have the listener at once; call it when the thread has ended."""
        if self._held is not None:
            self._save()
        if self._held is not None:
            listeners.give_up(self._store, self._held)
            self._held = None

    def _hold(self) -> bool:
        """Return whether the listener is ours, renewing the lease when a third of it is over."""
        now = self._clock.monotonic()
        if self._held is not None and now < self._renew_at:
            return True
        try:
            taken = listeners.take(self._store, self._listener.name, self._worker_id)
        except LookupError:  # forgotten by retention, or by somebody with psql
            listeners.register(self._store, [registration(self._listener)])
            taken = listeners.take(self._store, self._listener.name, self._worker_id)
        if taken is None:
            self._held = None
            return False
        if self._held is None or taken.fence != self._held.fence:
            self._last_id = self._saved_id = taken.last_id
            self._failures = taken.failures
        self._held = taken
        self._renew_at = now + LEASE.total_seconds() / 3
        return True

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
        self._last_id = notice.id
        if self._clock.monotonic() >= self._save_at:
            self._save()
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
        if self._held and not listeners.note_failure(self._store, self._held, self._last_id, self._failures, said):
            self._held = None
        self._saved_id = self._last_id
        return pause

    def _recovered(self, event: Event) -> None:
        if self._failures:
            self._log.info(
                "listener.recovered", listener=self._listener.name, event_id=event.id, failures=self._failures
            )
            self._failures = 0
            self._saved_id = -1  # the row still tells of the failures

    def _save(self) -> None:
        self._save_at = self._clock.monotonic() + _SAVE_EVERY.total_seconds()
        if self._held is None or self._saved_id == self._last_id:
            return
        if listeners.advance(self._store, self._held, self._last_id):
            self._saved_id = self._last_id
        else:
            self._held = None  # another daemon has it, and its place in the stream counts


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
