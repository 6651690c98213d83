"""Takes back the runs of workers that fell silent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.engine.running import InHand
from batchd.loop import Loop
from batchd.store import leases


class Reaper(Loop):
    """Looks for leases that have run out, once the store has answered for one whole lease.

    Right after an outage every lease looks expired; the daemons that still run need one heartbeat to say so.
    """

    def __init__(
        self,
        store: Database,
        lease: timedelta,
        every: timedelta,
        in_hand: InHand,
        on_reaped: Callable[[int], None],
        clock: Clock,
    ) -> None:
        super().__init__("reaper", clock)
        self._store = store
        self._lease = lease
        self._every = every
        self._in_hand = in_hand
        self._on_reaped = on_reaped
        self._healthy_since: float | None = None

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Reap what is expired."""
        monotonic = self._clock.monotonic()
        try:
            self._look(monotonic)
        except Exception:
            self._healthy_since = None
            raise
        return self._every

    def _look(self, monotonic: float) -> None:
        if self._healthy_since is None:
            leases.cancel_requests(self._store, [0])
            self._healthy_since = monotonic
        if monotonic - self._healthy_since < self._lease.total_seconds():
            # A cheap question keeps watch over the store's health meanwhile.
            leases.cancel_requests(self._store, [0])
            return
        mine = self._in_hand.fences()
        lost = leases.reap_expired(self._store, mine=mine)
        if lost:
            self._log.warning("run.lost", runs=list(lost))
            self._on_reaped(len(lost))
