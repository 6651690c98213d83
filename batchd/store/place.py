"""One reader's place in the outbox, as the loop that holds it sees it: taken, renewed, moved on, given up.

    nobody's ──hold──► ours ──reached, save──► ours, further on ──give_up──► nobody's
                        ▲ │
              hold,     │ └── a write matched no row: another daemon has it, and where that one is counts
              anew      └──── from then on

A listener's loop and the one that judges alerts both hold such a place; what they do with an event is their own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.store import listeners
from batchd.store.leased import LEASE
from batchd.store.listeners import Held, Registration

TRY_TO_TAKE = timedelta(seconds=5)
"""How often to look whether a place that another daemon has is free."""

_SAVE_EVERY = timedelta(seconds=1)
"""After a crash at most so much of what was read comes again."""


class Place:
    """For one thread. `on_taken` is called whenever the place has become ours: what was known of it counts no more."""

    def __init__(
        self,
        store: Database,
        registration: Registration,
        worker_id: str,
        clock: Clock,
        on_taken: Callable[[Held], None],
    ) -> None:
        self.held: Held | None = None
        self.last_id = 0
        """Up to where everything was dealt with."""

        self._store = store
        self._registration = registration
        self._worker_id = worker_id
        self._clock = clock
        self._on_taken = on_taken
        self._renew_at = 0.0
        self._saved_id: int | None = 0
        self._save_at = 0.0

    def hold(self) -> bool:
        """Return whether the place is ours, renewing the lease when a third of it is over."""
        now = self._clock.monotonic()
        if self.held is not None and now < self._renew_at:
            return True
        taken = self._take()
        if taken is not None and (self.held is None or taken.fence != self.held.fence):
            self.last_id = self._saved_id = taken.last_id
            self._on_taken(taken)
        self.held = taken
        self._renew_at = now + LEASE.total_seconds() / 3
        return taken is not None

    def save(self, *, at_once: bool = False) -> None:
        """Write down how far we are, at most once a second unless `at_once`."""
        now = self._clock.monotonic()
        if self.held is None or self._saved_id == self.last_id or (now < self._save_at and not at_once):
            return
        self._save_at = now + _SAVE_EVERY.total_seconds()
        self.saved(is_ours=listeners.advance(self._store, self.held, self.last_id))

    def note_failure(self, failures: int, said: str) -> None:
        """Write down how far we are, and that what comes next has failed so often."""
        if self.held is not None:
            self.saved(is_ours=listeners.note_failure(self._store, self.held, self.last_id, failures, said))

    def saved(self, *, is_ours: bool) -> None:
        """Hear what came of a transaction that wrote down `last_id`: it was, or another daemon has the place."""
        if is_ours:
            self._saved_id = self.last_id
        else:
            self.held = None

    def mark_stale(self) -> None:
        """Have the next `save` write, although we are no further: the row still tells of failures that are over."""
        self._saved_id = None

    def give_up(self) -> None:
        """Save, and let another daemon have the place at once."""
        self.save(at_once=True)
        if self.held is not None:
            listeners.give_up(self._store, self.held)
            self.held = None

    def _take(self) -> Held | None:
        try:
            return listeners.take(self._store, self._registration.name, self._worker_id)
        except LookupError:  # forgotten by retention, or by somebody with psql
            listeners.register(self._store, [self._registration])
            return listeners.take(self._store, self._registration.name, self._worker_id)
