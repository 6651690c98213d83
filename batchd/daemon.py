"""The whole wiring on one page: build every part once, start in order, stop in reverse.

    signals ─► store (waits for it) ─► migrate ─► reconcile ─► engine ─► scheduler ─► wake ─► ready
    stop:      scheduler paused and engine draining at once ─► engine stopped ─► the rest ─► the process ends

The main thread only waits for a signal and looks every second whether all loops are alive; a loop that died stops the
daemon loudly, since a daemon that half works is worse than one that its supervisor restarts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from datetime import timedelta
from typing import Protocol

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
)

from batchd.clock import Clock, SystemClock
from batchd.config.code import code_problems
from batchd.config.load import Config
from batchd.config.param_names import param_names
from batchd.db.dialect import Topic
from batchd.db.engine import Database, masked
from batchd.domain.job import JsonObject
from batchd.domain.lease import LeaseTerms
from batchd.engine.line_writer import LineWriter
from batchd.engine.pool import Engine
from batchd.engine.settings import EngineSettings
from batchd.errors import (
    BatchdError,
    DatabaseUnavailable,
    ExitCode,
    ExposedWithoutToken,
    LockTimeout,
    StatementCancelled,
)
from batchd.jobs.catalog import Kinds
from batchd.jobs.python.enqueuing import use_store
from batchd.listeners import registered
from batchd.listening.listener_loop import Listening
from batchd.loop import Loop
from batchd.scheduler.reconcile import reconcile
from batchd.scheduler.scheduler import Scheduler, SchedulerSettings
from batchd.signals import StopSignal, leave
from batchd.store import known_names, listeners, migrate, tokens, workers
from batchd.store.history import Retention
from batchd.store.log_lines import LineBuffer
from batchd.store.single_daemon import hold_sqlite_lock
from batchd.telemetry.logs import configure_logging, get_logger
from batchd.telemetry.masking import Masker
from batchd.telemetry.meters import Meters
from batchd.telemetry.thinning import Thinning
from batchd.wake_loop import WakeLoop

LEASE = LeaseTerms(length=timedelta(seconds=30), heartbeat=timedelta(seconds=10))
REAP_EVERY = timedelta(seconds=5)
"""A dead worker's run goes on when its lease has ended and the reaper has looked: within 35 s."""

_LOOK_EVERY = timedelta(seconds=1)
_STOP_NOTICED = timedelta(seconds=0.1)
_AFTER_GRACE = timedelta(seconds=5)
"""What a stop may take after the grace: cancel statements, give runs back, flush."""

_LAST_LINES = timedelta(seconds=2)

_STARTING, _SERVING, _DRAINING = range(3)
"""What the daemon is about, as `batchd.web.pulse.Phase` has it."""

log = get_logger()


def run(config: Config, *, no_wait: bool, allow_empty: bool, modules: Sequence[str] = ()) -> ExitCode:
    """Run the daemon on the config until a signal stops it, and return the exit code; main thread only.

    The config's folder becomes the working directory, so that a relative path in it means the same however the daemon
    was started. A clean stop does not return: it ends the process with code 0, so that a job's stuck thread cannot keep
    it alive.
    Raises BatchdError when the daemon cannot start: a config without jobs (unless `allow_empty`), a store that another
    daemon holds, that is newer than this batchd, or (with `no_wait`) that is unreachable.
    """
    clock = SystemClock()
    buffer = LineBuffer()
    log_settings = config.settings.log
    configure_logging(level=log_settings.level, log_format=log_settings.format, secrets=config.secrets, sink=buffer.add)
    log.info("service.starting", config=str(config.path), store=masked(config.store.url), jobs=len(config.jobs))
    for warning in config.warnings:
        log.warning("config.warning", problem=str(warning))
    os.chdir(config.folder)
    web: Web | None = None
    try:
        config.require_jobs(allow_empty=allow_empty)
        store = Database(config.store)
        with hold_sqlite_lock(store):
            web = _start_web(config, clock, modules)  # a fork, so before anything makes a thread
            stop = StopSignal()
            stop.install()
            code = Daemon(config, store, buffer, stop.asked, clock, web).run(no_wait=no_wait)
            # Still under the lock: nobody may take the store over before this process is gone.
            leave(code)
    except BatchdError as error:
        # The caller prints the message; a traceback would only hide it.
        log.error("service.failed", reason=error.message, exit_code=int(error.exit_code))  # noqa: TRY400
        if web is not None:
            web.stop()
        raise
    return code


def _start_web(config: Config, clock: Clock, modules: Sequence[str]) -> Web | None:
    if config.http is None:
        return None
    from batchd import surface  # noqa: PLC0415 (a daemon without [http] imports nothing of it)

    return surface.start(config, config.http, clock, modules)


class Web(Protocol):
    """The HTTP surface, a process of its own; `batchd.web` is imported only where there is one."""

    def watch(self, counted: Callable[[], JsonObject]) -> None:
        """Answer its questions and keep it running."""
        ...

    def beat(self, phase: int, *, planned_at: float, renewed_at: float) -> None:
        """Tell it how the daemon is, now: moments of the monotonic clock, 0 for never."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class Part(Protocol):
    """What the main thread watches."""

    name: str

    @property
    def is_alive(self) -> bool:
        """Whether it still works."""
        ...


class Daemon:
    """Every part of the running process. `run` does it all; the main thread calls it once."""

    def __init__(
        self,
        config: Config,
        store: Database,
        buffer: LineBuffer,
        stop: threading.Event,
        clock: Clock,
        web: Web | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._stop = stop
        self._web = web
        self._clock = clock
        self._began_at = clock.now()
        self._worker = workers.this_process()
        self._meters = Meters(job.name for job in config.jobs)
        self._engine = Engine(
            store=store,
            settings=engine_settings(config),
            kinds=config.kinds,
            databases={name: Database(settings) for name, settings in config.databases.items()},
            resolve_params=config.resolve_params,
            mask=Masker(config.secrets).masked,
            worker=self._worker,
            clock=clock,
            mail=config.mail,
            meters=self._meters,
        )
        daemon = config.settings.daemon
        retention = Retention(
            daemon.keep_runs,
            daemon.keep_for,
            daemon.keep_events,
            daemon.keep_unread_events,
            keep={str(state): age for state, age in daemon.keep.items()},
        )
        self._scheduler = Scheduler(
            store,
            SchedulerSettings(retention),
            clock,
            on_planned=lambda: self._engine.wake(frozenset({Topic.RUNS})),
            meters=self._meters,
        )
        self._wakes = WakeLoop(store, self._wake, clock)
        self._lines = LineWriter(store, buffer, clock)
        self._listening = Listening(store, registered(), self._worker.id, clock)

    def run(self, *, no_wait: bool) -> ExitCode:
        """Start, serve until asked to stop or a loop died, stop; return the exit code."""
        if not self._reach_store(no_wait=no_wait):
            self._end_web()
            return ExitCode.OK
        use_store(self._store)
        self._engine.start()
        self._scheduler.start()
        for loop in self._side_loops():
            loop.start()
        self._listening.start()
        for problem in code_problems(self._config):
            # Told and gone on: one job's code that cannot be imported is no reason to keep the others from running.
            log.error("target.invalid", job=problem.section.removeprefix("jobs."), reason=problem.message)
        if self._web is not None:
            self._web.watch(self._counted)
        self._beat(_SERVING)
        log.info("service.ready", worker=self._worker.id, jobs=len(self._config.jobs))
        code = self._serve()
        self._shut_down(code)
        log.info("service.stopped", exit_code=int(code))
        return code

    def _reach_store(self, *, no_wait: bool) -> bool:
        """Wait until the store answers and is up to date; return False when a stop came first.

        A thread does the connecting: the C library can hang in it for longer than whoever stops the daemon waits.
        """
        reached: Future[None] = Future()

        def reach() -> None:
            try:
                reached.set_result(self._waiting(no_wait=no_wait)(self._prepare))
            except BaseException as error:  # noqa: BLE001 (handed to the main thread)
                reached.set_exception(error)

        threading.Thread(target=reach, name="batchd-reach-store", daemon=True).start()
        while not (self._stop.is_set() or wait([reached], timeout=_STOP_NOTICED.total_seconds()).done):
            self._beat(_STARTING)
        if self._stop.is_set():
            return False
        reached.result()
        return True

    def _waiting(self, *, no_wait: bool) -> Retrying:
        thinning = Thinning()

        def tell(state: RetryCallState) -> None:
            assert state.outcome
            if thinning.failed(self._clock.monotonic()):
                log.warning("store.waiting", reason=str(state.outcome.exception()), tries=state.attempt_number)

        return Retrying(
            retry=retry_if_exception_type((DatabaseUnavailable, LockTimeout, StatementCancelled)),
            wait=wait_exponential(multiplier=0.5, max=10),
            stop=stop_after_attempt(1) if no_wait else stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            after=tell,
            reraise=True,
        )

    def _prepare(self) -> None:
        """Bring the store up to date; all of it may be done again when the store went away in the middle."""
        if migrate.migrate(self._store):
            log.info("store.migrated")
        self._require_token()
        reconcile(self._store, self._config.jobs, self._clock)
        self._listening.prepare()
        if self._web is not None:
            listeners.wish_for_starts(self._store)
        self._engine.prepare()
        self._register_names()
        self._scheduler.queue_reboots(self._began_at)

    def _require_token(self) -> None:
        """Raise ExposedWithoutToken when other machines could reach the HTTP surface and nobody could be let in."""
        http = self._config.http
        if http is not None and http.is_exposed and not tokens.any_valid(self._store):
            raise ExposedWithoutToken(
                f"[http] listen = {str(http.listen)!r} can be reached from other machines, and there is no token yet",
                hint="make one (`batchd token create NAME --role operator`, after `batchd migrate` on a new store), or "
                "listen on 127.0.0.1",
            )

    def _register_names(self) -> None:
        """Tell the store which kinds and queues there are; kinds are imported for it only when they have changed."""
        kinds, queues = self._config.kinds, self._config.settings.queues
        fingerprint = kinds.fingerprint() if isinstance(kinds, Kinds) else None
        if fingerprint is not None and known_names.remember(self._store, list(kinds), fingerprint, queues):
            return
        known = {name: param_names(kind) for name, kind in kinds.items()}
        known_names.register(self._store, known, queues, fingerprint=fingerprint)

    def _serve(self) -> ExitCode:
        while not self._stop.wait(_LOOK_EVERY.total_seconds()):
            self._beat(_SERVING)
            parts: tuple[Part, ...] = (self._engine, self._scheduler, self._listening, *self._side_loops())
            dead = [part.name for part in parts if not part.is_alive]
            if dead:
                log.critical("service.failed", reason=f"died: {', '.join(dead)}", exit_code=int(ExitCode.INTERNAL))
                return ExitCode.INTERNAL
        return ExitCode.OK

    def _shut_down(self, code: ExitCode) -> None:
        """Stop in reverse order. Nothing is planned or claimed from the first lines on."""
        grace = self._config.settings.daemon.shutdown_grace
        deadline = self._clock.monotonic() + (grace + _AFTER_GRACE).total_seconds()
        threading.Thread(target=self._leave_at, args=(deadline, code), name="batchd-last-resort", daemon=True).start()
        self._beat(_DRAINING)
        self._scheduler.pause()
        self._engine.drain()
        log.info("service.draining", runs=[attempt.claim.run_id for attempt in self._engine.active()])
        self._wakes.request_stop()
        self._listening.request_stop()
        self._engine.stop(deadline)
        self._scheduler.stop(min(deadline, self._clock.monotonic() + _LAST_LINES.total_seconds()))
        self._listening.stop(min(deadline, self._clock.monotonic() + _LAST_LINES.total_seconds()))
        self._lines.flush(self._clock.monotonic() + _LAST_LINES.total_seconds())
        self._end_web()

    def _leave_at(self, deadline: float, code: ExitCode) -> None:
        """End the process soon after the deadline: a store that neither answers nor breaks may hang the main thread."""
        last = timedelta(seconds=deadline - self._clock.monotonic()) + _LAST_LINES
        threading.Event().wait(last.total_seconds())
        leave(code, lambda: log.warning("service.stop_forced", exit_code=int(code)))

    def _beat(self, phase: int) -> None:
        """Tell the HTTP surface how old the signs of life are; it judges them, also when this process cannot."""
        if self._web is not None:
            self._web.beat(phase, planned_at=self._scheduler.last_pass_end, renewed_at=self._engine.last_renewal)

    def _counted(self) -> JsonObject:
        return {**self._meters.snapshot(), "slots": dict(self._engine.slots), "worker": self._worker.id}

    def _end_web(self) -> None:
        if self._web is not None:
            self._web.stop()

    def _side_loops(self) -> tuple[Loop, ...]:
        return (self._wakes, self._lines)

    def _wake(self, topics: frozenset[Topic]) -> None:
        self._engine.wake(topics)
        if Topic.SCHEDULES in topics:
            self._scheduler.wake()


def engine_settings(config: Config) -> EngineSettings:
    """Return what the engine needs to know of the config."""
    daemon = config.settings.daemon
    return EngineSettings(
        slots=daemon.workers,
        queues={name: queue.concurrency for name, queue in config.settings.queues.items()},
        lease=LEASE,
        reap_every=REAP_EVERY,
        shutdown_grace=daemon.shutdown_grace,
        rules={name: queue.rules() for name, queue in config.settings.queues.items()},
        queue_order=daemon.queue_order,
    )
