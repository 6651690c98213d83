"""Keeps the leases: renews them, and hears of cancel requests.

A store that does not answer can hold this loop's thread for longer than a lease. So it is the stopper, which never
asks the store, that stops attempts whose lease cannot be trusted any more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.engine.running import InHand, RunningAttempt
from batchd.engine.settings import EngineSettings
from batchd.errors import DatabaseUnavailable, LockTimeout, StatementCancelled, StopReason
from batchd.loop import Loop
from batchd.store import leases, workers
from batchd.store.schema import SCHEMA_VERSION
from batchd.telemetry.thinning import Thinning

_TURN = timedelta(seconds=1)
_AWAY = (DatabaseUnavailable, LockTimeout, StatementCancelled)


class LeaseKeeper(Loop):
    """Every second: progress and cancel requests; every heartbeat: renew all leases in one statement.

    `on_forgotten` is called when the store no longer has the worker: the daemon slept for days, or somebody deleted it.
    """

    def __init__(
        self,
        store: Database,
        settings: EngineSettings,
        worker_id: str,
        in_hand: InHand,
        clock: Clock,
        *,
        on_forgotten: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__("lease-keeper", clock)
        self._on_forgotten = on_forgotten
        self.state = "running"
        self.renewed_at = 0.0
        self.config_error: str | None = None
        self._store = store
        self._terms = settings.lease
        self._slots = settings.slots
        self._worker_id = worker_id
        self._in_hand = in_hand
        self._renew_at = clock.monotonic() + self._terms.heartbeat.total_seconds()
        self._outage = Thinning()
        self._store_version = SCHEMA_VERSION

    def hear(self, topics: frozenset[Topic]) -> None:
        """Look for cancel requests at once."""
        if Topic.CANCEL in topics and self._in_hand.all():
            self.wake()

    def tell_slots(self, slots: int) -> None:
        """Have the store know of another number of threads. Any thread may call it."""
        if slots != self._slots:
            self._slots = slots
            self.beat_now()

    def beat_now(self) -> None:
        """Renew, and say how the daemon is, at once. Any thread may call it."""
        self._renew_at = self._clock.monotonic()
        self.wake()

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Do what is due; an unreachable store is told once and tried again a second later."""
        attempts = self._in_hand.all()
        try:
            if self._clock.monotonic() >= self._renew_at:
                self._renew(attempts)
            elif attempts:
                self._cancel(leases.cancel_requests(self._store, [attempt.claim.run_id for attempt in attempts]))
            self._write_progress(attempts)
        except _AWAY as error:
            if self._outage.failed(self._clock.monotonic()):
                failures = self._outage.count
                self._log.warning("lease.renewal_failed", runs=len(attempts), failures=failures, reason=str(error))
            return _TURN
        self._outage.recovered(self._clock.monotonic())
        return min(_TURN, self.until_renewal) if attempts else self.until_renewal

    @property
    def until_renewal(self) -> timedelta:
        """Return how long until the leases are to be renewed; nothing when that is overdue."""
        return timedelta(seconds=max(0.0, self._renew_at - self._clock.monotonic()))

    def _renew(self, attempts: tuple[RunningAttempt, ...]) -> None:
        asked_at = self._clock.monotonic()
        self._look_at_version(
            workers.beat(
                self._store, self._worker_id, state=self.state, config_error=self.config_error, slots=self._slots
            )
        )
        held = [attempt for attempt in attempts if attempt.stop_reason is not StopReason.LEASE_LOST]
        fences = dict(sorted((attempt.claim.run_id, attempt.claim.fence) for attempt in held))
        renewal = leases.renew(self._store, fences, self._terms.length)
        for attempt in held:
            run_id, fence = attempt.claim.run_id, attempt.claim.fence
            if run_id in renewal.renewed and fence == fences[run_id]:
                attempt.trusted_until = self._terms.trusted_until(asked_at)
            elif not (attempt.is_ended or attempt.is_given_back):
                # What we end or give back this moment has left `running` too: only a live attempt is lost.
                self._lose(attempt)
        self._cancel(renewal.cancel_requested)
        self.renewed_at = asked_at
        self._renew_at = asked_at + self._terms.heartbeat.total_seconds()

    def _look_at_version(self, version: int | None) -> None:
        """Register again when the store has forgotten us; tell, once, that a newer batchd has changed its tables.

        No reason to stop: a statement that the newer tables do not take fails by itself, and shows in /readyz.
        """
        if version is None:
            self._on_forgotten()
        elif version != self._store_version:
            self._store_version = version
            if version > SCHEMA_VERSION:
                self._log.warning("store.newer", found=version, known=SCHEMA_VERSION)

    def _lose(self, attempt: RunningAttempt) -> None:
        if attempt.tell_to_stop(StopReason.LEASE_LOST):
            self._log.warning("lease.lost", fence=attempt.claim.fence, **attempt.claim.log_fields)

    def _cancel(self, run_ids: frozenset[int]) -> None:
        for attempt in self._in_hand.all():
            if attempt.claim.run_id in run_ids and attempt.tell_to_stop(StopReason.CANCELLED):
                self._log.info("run.cancel_requested", **attempt.claim.log_fields)

    def _write_progress(self, attempts: tuple[RunningAttempt, ...]) -> None:
        reached = {}
        for attempt in attempts:
            progress = attempt.take_progress()
            if progress is not None:
                reached[attempt.claim.run_id] = (attempt.claim.fence, progress)
        if reached:
            leases.write_progress(self._store, reached)
