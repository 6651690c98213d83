"""The engine: everything that executes runs, behind one door."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from structlog.typing import FilteringBoundLogger

from batchd.clock import Clock
from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.attempt import AttemptOutcome
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
from batchd.engine.setup import EngineConfig, Setup, is_unused
from batchd.engine.stopper import Stopper
from batchd.engine.sweeper import Sweeper
from batchd.engine.worker import Dispatcher, Waiting, WorkerThreads
from batchd.errors import BatchdError, StopReason
from batchd.loop import Loop
from batchd.store import known_names, leases, meta, schedules, workers
from batchd.store.finish import Ending
from batchd.store.meta import RECORD, record_id
from batchd.store.workers import WorkerIdentity
from batchd.telemetry.logs import get_logger, in_every_line
from batchd.telemetry.meters import Meters

_CANCEL_GRACE_SECONDS = 2.0
_TELL_SECONDS = 1.0


class Engine:
    """Claims and executes runs from `start` until `drain` and `stop`; these three belong to the main thread."""

    name = "engine"

    def __init__(
        self,
        *,
        store: Database,
        settings: EngineSettings,
        config: EngineConfig,
        worker: WorkerIdentity,
        clock: Clock,
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters(())
        self._store = store
        self._settings = settings
        self._config = config
        self._worker = worker
        self._clock = clock
        self._log = get_logger()
        self._in_hand = InHand(clock)
        self._waiting = Waiting(clock, settings.slots)
        self._dispatcher = Dispatcher(
            store, settings, worker.id, self._waiting, self._in_hand, clock, setup=self._current_setup
        )
        self._finisher = Finisher(store, self._in_hand, self._recorded, clock, is_storm=self._is_storm)
        self._keeper = LeaseKeeper(store, settings, worker.id, self._in_hand, clock, on_forgotten=self._register)
        self._stopper = Stopper(self._in_hand, clock)
        self._reaper = Reaper(store, settings.lease.length, settings.reap_every, self._in_hand, self._reaped, clock)
        self._fan_in = FanIn(store, self._dispatcher.wake, clock)
        self._threads = WorkerThreads(settings.slots, self._waiting, self._execute)
        self._store_id = ""
        self._setup: Setup | None = None
        self._sweepers: dict[str, Sweeper] = {}
        self._retired: list[Sweeper] = []

    @property
    def is_alive(self) -> bool:
        """Whether every loop and every thread of the engine runs that was not told to end, as a reload does."""
        return self._threads.are_alive and all(loop.is_alive or loop.is_stopping for loop in self._loops())

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
        self._store_id = meta.store_id(self._store)
        self._setup = self._setup_of(self._config)
        self._sweepers = {name: self._sweeper(each) for name, each in self._config.databases.items()}
        self._sweepers[STORE] = self._sweeper(self._store)
        self._sweepers[RECORD] = Sweeper(self._store, self._store, record_id(self._store_id), self._clock)
        self._register()
        self._keeper.renewed_at = self._clock.monotonic()
        self._bury_the_dead()

    def start(self) -> None:
        """Begin; `prepare` came before."""
        self._threads.start()
        for loop in self._loops():
            loop.start()

    def reconfigure(self, settings: EngineSettings, config: EngineConfig, commit: Callable[[], None]) -> None:
        """Work by another config from now on; running attempts go on with theirs. Any thread, one at a time.

        `commit` writes the config's jobs into the store; when it raises, nothing has changed. No run is claimed between
        it and the swap, so that none is executed by another config than it was queued with.
        """
        with self._dispatcher.claiming:
            commit()
            before, self._config = self._config, config
            self._setup = self._setup_of(config)
            self._settings = settings
            self._dispatcher.reconfigure(settings)
        self._threads.resize(settings.slots)
        self._keeper.tell_slots(settings.slots)
        self._change_sweepers(before, config)
        self._dispatcher.wake()

    def say_config_error(self, error: str | None) -> None:
        """Have the store know why the config was refused that this daemon was last asked to read; None: it was not."""
        self._keeper.config_error = error
        self._keeper.beat_now()

    @property
    def is_quiet(self) -> bool:
        """Whether it was told to claim no runs."""
        return self._dispatcher.is_quiet

    def be_quiet(self, *, quiet: bool) -> None:
        """Claim no more runs until told otherwise; what runs goes on. Any thread may call it."""
        self._dispatcher.is_quiet = quiet
        self._dispatcher.wake()

    def oldest_turn(self) -> tuple[str, float]:
        """Return which of the loops that turn every few seconds has not done so for longest, and since when."""
        oldest: Loop = min((self._dispatcher, self._keeper), key=lambda loop: loop.turned_at)
        return oldest.name, oldest.turned_at

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

    def stop(self, deadline: float, tell: Callable[[], None] = lambda: None) -> bool:
        """Wait for the running attempts, then end them; return whether all of them ended by `deadline` (monotonic).

        `tell` is called about every second meanwhile, on this thread. What is still running at the end is given back,
        which the process must follow by ending at once.
        """
        self._dispatcher.stop(min(deadline, self._clock.monotonic() + _CANCEL_GRACE_SECONDS))
        self._give_back(self._waiting.close())
        for running in self._in_hand.all():
            running.tell_to_stop(StopReason.SHUTDOWN)
        late: list[RunningAttempt] = []
        grace_ends = self._clock.monotonic() + self._settings.shutdown_grace.total_seconds()
        if not self._wait_until_empty(min(grace_ends, deadline), tell):
            self._stopper.force = True
            self._stopper.wake()
            last = min(self._clock.monotonic() + _CANCEL_GRACE_SECONDS, deadline)
            if not self._wait_until_empty(last, tell):
                # One that has ended is the finisher's to record as it ended.
                late = [running for running in self._in_hand.all() if not running.is_ended]
                self._give_back(late)
                self._in_hand.wait_until_empty(min(self._clock.monotonic() + _CANCEL_GRACE_SECONDS, deadline))
        is_clean = not late and not self._in_hand.all()
        for loop in (*self._loops(), *self._retired):
            loop.request_stop()
        try:
            workers.beat(self._store, self._worker.id, state="stopped")
        except BatchdError as error:
            self._log.warning("store.unavailable", reason=str(error))
        return is_clean

    def _register(self) -> None:
        workers.register(self._store, self._worker, slots=self._settings.slots)
        self._log.info("worker.registered", worker=self._worker.id, slots=self._settings.slots)

    def _wait_until_empty(self, deadline: float, tell: Callable[[], None]) -> bool:
        while True:
            tell()
            until = min(deadline, self._clock.monotonic() + _TELL_SECONDS)
            if self._in_hand.wait_until_empty(until):
                return True
            if self._clock.monotonic() >= deadline:
                return False

    def _current_setup(self) -> Setup:
        assert self._setup
        return self._setup

    def _setup_of(self, config: EngineConfig) -> Setup:
        around = Surroundings(self._store, self._store_id, config.databases, self._clock, config.mask, config.mail)
        is_behind = functools.partial(self._is_behind, config.definitions)
        catalog = Catalog(config.kinds, config.resolve_params, self._knows_queue, is_behind, self._is_elsewhere)
        return Setup(catalog, around)

    def _sweeper(self, database: Database) -> Sweeper:
        return Sweeper(database, self._store, self._store_id, self._clock)

    def _change_sweepers(self, before: EngineConfig, after: EngineConfig) -> None:
        """Give each new pool a sweeper; that of a pool which is no longer of the config closes it when it is unused."""
        self._retired = [sweeper for sweeper in self._retired if sweeper.is_alive]
        gone = {name: each for name, each in before.databases.items() if after.databases.get(name) is not each}
        new = {name: each for name, each in after.databases.items() if before.databases.get(name) is not each}
        current = dict(self._sweepers)
        leaving = {current.pop(name): database for name, database in gone.items()}
        for name, database in new.items():
            current[name] = self._sweeper(database)
            current[name].start()
        self._sweepers = current  # in one step: other threads go through it
        self._retired += leaving
        for sweeper, database in leaving.items():  # they may end at once, and are not missed any more
            sweeper.retire(functools.partial(is_unused, database, self._in_hand))

    def _is_behind(self, definitions: Mapping[str, str], job: str) -> bool:
        """Return whether the store has the job as another config has it; so it may be when the store is away."""
        try:
            stored = schedules.definition_hash(self._store, job)
        except BatchdError:
            return True
        return stored is not None and stored != definitions.get(job)

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

    def _is_elsewhere(self, kind: str) -> bool:
        try:
            return known_names.is_known_to_others(self._store, kind, self._worker.id)
        except BatchdError:
            return True

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
        setup = running.setup
        assert setup
        claim = running.claim
        started = self._clock.monotonic()
        running.start(started)
        with in_every_line(claim.log_fields):
            lag = (self._clock.now() - (claim.scheduled_for or claim.available_at)).total_seconds()
            fire = claim.scheduled_for and claim.scheduled_for.isoformat().replace("+00:00", "Z")
            log = self._log.bind()  # once for both lines: unbound, each of them costs twice as much
            log.info("run.started", kind=claim.kind, scheduled_for=fire, lag_s=round(lag, 3))
            self._meters.started(lag)
            ending = attempt.execute(running, setup.catalog, setup.around)
            running.is_ended = True
            duration = round(self._clock.monotonic() - started, 3)
            _tell(log, ending, duration)
        self._finisher.add(ending.measured(duration, running.rows, running.last_progress))
        self._look_for_more()

    def _recorded(self, endings: Sequence[Ending]) -> None:
        """Follow up on recorded endings, on the finisher's thread."""
        for ending in endings:
            self._follow_up(ending)
        if any(ending.decision.state is RunState.QUEUED for ending in endings):
            self._dispatcher.wake()
        else:
            self._look_for_more()

    def _follow_up(self, ending: Ending) -> None:
        self._count(ending)
        if ending.decision.state is RunState.CANCELLED and ending.outcome is not AttemptOutcome.CANCELLED:
            self._log.info("run.cancelled", run_id=ending.claim.run_id, job=ending.claim.job)
        if ending.decision.state is RunState.SUCCEEDED:
            for name in ending.checkpointed:
                key = record_key if name == RECORD else checkpoint_key
                # None: the database has left the config meanwhile. It is looked through should it come back.
                sweeper = self._sweepers.get(name)
                if sweeper is not None:
                    sweeper.forget(key(self._store_id, ending.claim))

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

    def _is_storm(self) -> bool:
        """Return whether each thread has a claimed run to go on with, and no queue a limit that an ending relieves."""
        settings = self._settings
        has_limit = any(limit is not None for limit in settings.queues.values())
        has_limit |= any(rules.is_shared for rules in settings.rules.values())
        return not has_limit and self._waiting.count() >= settings.slots

    def _look_for_more(self) -> None:
        """Have the dispatcher look when a thread is free, unless it knows that nothing waits or looks soon anyway."""
        if not self._dispatcher.is_dry and not self._dispatcher.is_woken and self._waiting.wanted() > 0:
            self._dispatcher.wake()


def _tell(log: FilteringBoundLogger, ending: Ending, duration: float) -> None:
    error = ending.error
    facts: dict[str, Any] = {"outcome": ending.outcome.value, "duration_s": duration}
    if error is not None:
        facts["error"] = {"type": error.type, "message": error.message, "stack": error.traceback}
    match ending.decision.state:
        case RunState.SUCCEEDED:
            log.info("run.finished", result=ending.result, **facts)
        case RunState.CANCELLED if ending.decision.reason is Reason.DISCARDED:
            log.info("run.discarded", **facts)
        case RunState.CANCELLED:
            log.info("run.cancelled", **facts)
        case RunState.QUARANTINED:
            log.error("run.quarantined", **facts)
        case RunState.QUEUED if ending.decision.reason is Reason.SNOOZED:
            wait = ending.decision.retry_in
            log.info("run.snoozed", again_in_s=(wait or timedelta(0)).total_seconds(), **facts)
        case RunState.QUEUED if ending.outcome in {AttemptOutcome.RELEASED, AttemptOutcome.LOST}:
            log.info("run.released", **facts)
        case RunState.QUEUED:
            wait = ending.decision.retry_in
            log.warning("run.retrying", retry_in_s=(wait or timedelta(0)).total_seconds(), **facts)
        case _:
            log.error("run.failed", **facts)
