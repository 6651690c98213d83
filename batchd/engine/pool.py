"""The engine: everything that executes runs, behind one door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from batchd.clock import Clock
from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome
from batchd.domain.job import JsonObject
from batchd.domain.run import Reason, RunState
from batchd.engine import attempt
from batchd.engine.attempt import Catalog
from batchd.engine.context import STORE, Surroundings, checkpoint_key, record_key
from batchd.engine.fan_in import FanIn
from batchd.engine.finisher import Finisher
from batchd.engine.lease import LeaseKeeper
from batchd.engine.reaper import Reaper
from batchd.engine.running import InHand, RunningAttempt
from batchd.engine.settings import EngineSettings
from batchd.engine.stopper import Stopper
from batchd.engine.sweeper import Sweeper, sweepers
from batchd.engine.worker import Dispatcher, Waiting, WorkerThreads
from batchd.errors import BatchdError, StopReason
from batchd.jobs.contract import Kind
from batchd.loop import Loop
from batchd.mail.delivery import MailSettings
from batchd.store import known_names, leases, meta, workers
from batchd.store.finish import Ending
from batchd.store.meta import RECORD, record_id
from batchd.store.workers import WorkerIdentity
from batchd.telemetry.logs import get_logger
from batchd.telemetry.meters import Meters

_CANCEL_GRACE_SECONDS = 2.0


class Engine:
    """Claims and executes runs from `start` until `drain` and `stop`; these three belong to the main thread."""

    name = "engine"

    def __init__(
        self,
        *,
        store: Database,
        settings: EngineSettings,
        kinds: Mapping[str, Kind[Any]],
        databases: Mapping[str, Database],
        resolve_params: Callable[[str | None, JsonObject], JsonObject],
        mask: Callable[[Any], Any],
        worker: WorkerIdentity,
        clock: Clock,
        mail: MailSettings | None = None,
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters(())
        self._mail = mail
        self._store = store
        self._settings = settings
        self._databases = databases
        self._catalog = Catalog(kinds, resolve_params, self._knows_queue)
        self._mask = mask
        self._worker = worker
        self._clock = clock
        self._log = get_logger()
        self._in_hand = InHand(clock)
        self._waiting = Waiting(clock, settings.slots)
        self._dispatcher = Dispatcher(store, settings, worker.id, self._waiting, self._in_hand, clock)
        self._finisher = Finisher(store, self._in_hand, self._recorded, clock)
        self._keeper = LeaseKeeper(store, settings.lease, worker.id, self._in_hand, clock)
        self._stopper = Stopper(self._in_hand, clock)
        self._reaper = Reaper(store, settings.lease.length, settings.reap_every, self._in_hand, self._reaped, clock)
        self._fan_in = FanIn(store, self._dispatcher.wake, clock)
        self._threads = WorkerThreads(settings.slots, self._waiting, self._execute)
        self._around: Surroundings | None = None
        self._sweepers: dict[str, Sweeper] = {}

    @property
    def is_alive(self) -> bool:
        """Whether every loop and every thread of the engine runs."""
        return self._threads.are_alive and all(loop.is_alive for loop in self._loops())

    @property
    def slots(self) -> dict[str, int]:
        """Return how many threads there are for runs, and how many attempts are in hand."""
        return {"all": self._settings.slots, "busy": len(self._in_hand.all())}

    @property
    def last_renewal(self) -> float:
        """When the store last took a renewal of the leases (monotonic seconds; 0 before the first)."""
        return self._keeper.renewed_at

    def prepare(self) -> None:
        """Register the worker and take back what dead workers left behind; may be called again when that failed."""
        store_id = meta.store_id(self._store)
        self._around = Surroundings(self._store, store_id, self._databases, self._clock, self._mask, self._mail)
        self._sweepers = sweepers({**self._databases, STORE: self._store}, self._store, store_id, self._clock)
        self._sweepers[RECORD] = Sweeper(self._store, self._store, record_id(store_id), self._clock)
        workers.register(self._store, self._worker, slots=self._settings.slots)
        self._keeper.renewed_at = self._clock.monotonic()
        self._log.info("worker.registered", worker=self._worker.id, slots=self._settings.slots)
        self._bury_the_dead()

    def start(self) -> None:
        """Begin; `prepare` came before."""
        self._threads.start()
        for loop in self._loops():
            loop.start()

    def wake(self, topics: frozenset[Topic]) -> None:
        """Look for runs or cancel requests at once. Any thread may call it."""
        if Topic.RUNS in topics:
            self._dispatcher.wake()
        self._keeper.hear(topics)

    def active(self) -> tuple[RunningAttempt, ...]:
        """Return the attempts in hand. Any thread may call it."""
        return self._in_hand.all()

    def drain(self) -> None:
        """Stop claiming at once, and tell every running attempt to stop at its next checkpoint."""
        self._dispatcher.request_stop()
        self._keeper.state = "draining"
        for running in self._in_hand.all():
            running.tell_to_stop(StopReason.SHUTDOWN)

    def stop(self, deadline: float) -> bool:
        """Wait for the running attempts, then end them; return whether all of them ended by `deadline` (monotonic).

        What is still running at the end is given back, which the process must follow by ending at once.
        """
        self._dispatcher.stop(min(deadline, self._clock.monotonic() + _CANCEL_GRACE_SECONDS))
        self._give_back(self._waiting.close())
        for running in self._in_hand.all():
            running.tell_to_stop(StopReason.SHUTDOWN)
        grace_ends = self._clock.monotonic() + self._settings.shutdown_grace.total_seconds()
        if not self._in_hand.wait_until_empty(min(grace_ends, deadline)):
            self._stopper.force = True
            self._stopper.wake()
            last = min(self._clock.monotonic() + _CANCEL_GRACE_SECONDS, deadline)
            if not self._in_hand.wait_until_empty(last):
                # One that has ended is the finisher's to record as it ended.
                self._give_back([running for running in self._in_hand.all() if not running.is_ended])
                self._in_hand.wait_until_empty(min(self._clock.monotonic() + _CANCEL_GRACE_SECONDS, deadline))
        is_clean = not self._in_hand.all()
        for loop in self._loops():
            loop.request_stop()
        try:
            workers.beat(self._store, self._worker.id, state="stopped")
        except BatchdError as error:
            self._log.warning("store.unavailable", reason=str(error))
        return is_clean

    def _loops(self) -> tuple[Loop, ...]:
        return (
            self._finisher,
            self._keeper,
            self._stopper,
            self._reaper,
            self._dispatcher,
            self._fan_in,
            *self._sweepers.values(),
        )

    def _knows_queue(self, queue: str) -> bool:
        return queue in self._settings.queues or known_names.knows_queue(self._store, queue)

    def _bury_the_dead(self) -> None:
        dead = workers.provably_dead(self._store, self._worker, all_others=self._store.dialect.name == "sqlite")
        if dead:
            taken = leases.take_back_from(self._store, dead)
            workers.mark_stopped(self._store, dead)
            self._log.warning("worker.dead_found", workers=list(dead), runs=list(taken))

    def _give_back(self, attempts: list[RunningAttempt]) -> None:
        try:
            self._dispatcher.give_back(attempts)
        except BatchdError as error:
            # Their leases will run out; the next daemon takes them back.
            self._log.warning("finish.delayed", runs=len(attempts), reason=str(error))
        for running in attempts:
            self._log.info("run.released", **running.claim.log_fields)

    def _execute(self, running: RunningAttempt) -> None:
        """Execute one attempt on a worker thread."""
        assert self._around
        claim = running.claim
        started = self._clock.monotonic()
        running.start(started)
        with structlog.contextvars.bound_contextvars(**claim.log_fields):
            lag = (self._clock.now() - (claim.scheduled_for or claim.available_at)).total_seconds()
            fire = claim.scheduled_for and claim.scheduled_for.isoformat().replace("+00:00", "Z")
            self._log.info("run.started", kind=claim.kind, scheduled_for=fire, lag_s=round(lag, 3))
            self._meters.started(lag)
            ending = attempt.execute(running, self._catalog, self._around)
            running.is_ended = True
            duration = round(self._clock.monotonic() - started, 3)
            self._tell(ending, duration)
        self._finisher.add(
            replace(ending, duration_seconds=duration, rows=running.rows, progress=running.last_progress)
        )
        self._look_for_more()

    def _tell(self, ending: Ending, duration: float) -> None:
        error = ending.error
        facts: dict[str, Any] = {"outcome": ending.outcome.value, "duration_s": duration}
        if error is not None:
            facts["error"] = {"type": error.type, "message": error.message, "stack": error.traceback}
        match ending.decision.state:
            case RunState.SUCCEEDED:
                self._log.info("run.finished", result=ending.result, **facts)
            case RunState.CANCELLED if ending.decision.reason is Reason.DISCARDED:
                self._log.info("run.discarded", **facts)
            case RunState.CANCELLED:
                self._log.info("run.cancelled", **facts)
            case RunState.QUARANTINED:
                self._log.error("run.quarantined", **facts)
            case RunState.QUEUED if ending.decision.reason is Reason.SNOOZED:
                wait = ending.decision.retry_in
                self._log.info("run.snoozed", again_in_s=(wait or timedelta(0)).total_seconds(), **facts)
            case RunState.QUEUED if ending.outcome in {AttemptOutcome.RELEASED, AttemptOutcome.LOST}:
                self._log.info("run.released", **facts)
            case RunState.QUEUED:
                wait = ending.decision.retry_in
                self._log.warning("run.retrying", retry_in_s=(wait or timedelta(0)).total_seconds(), **facts)
            case _:
                self._log.error("run.failed", **facts)

    def _recorded(self, ending: Ending) -> None:
        """Follow up on a recorded ending, on the finisher's thread."""
        assert self._around
        self._count(ending)
        if ending.decision.state is RunState.CANCELLED and ending.outcome is not AttemptOutcome.CANCELLED:
            self._log.info("run.cancelled", run_id=ending.claim.run_id, job=ending.claim.job)
        if ending.decision.state is RunState.SUCCEEDED:
            for name in ending.checkpointed:
                key = record_key if name == RECORD else checkpoint_key
                self._sweepers[name].forget(key(self._around.store_id, ending.claim))
        if ending.decision.state is RunState.QUEUED:
            self._dispatcher.wake()
        else:
            self._look_for_more()

    def _reaped(self, runs: int) -> None:
        self._meters.lost(runs)
        self._dispatcher.wake()

    def _count(self, ending: Ending) -> None:
        claim = ending.claim
        trigger = "schedule" if claim.scheduled_for is not None else "manual"
        if ending.decision.state.is_final:
            self._meters.ended(claim.job, ending.decision.state, trigger, ending.duration_seconds, ending.rows)
        elif ending.outcome in {AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT}:
            self._meters.count("retries", claim.job)

    def _look_for_more(self) -> None:
        """Have the dispatcher look when a thread is free, unless it knows that nothing waits."""
        if not self._dispatcher.is_dry and self._waiting.wanted() > 0:
            self._dispatcher.wake()
