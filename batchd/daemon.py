"""The whole wiring on one page: build every part once, start in order, stop in reverse.

    signals ─► store (waits for it) ─► migrate ─► reconcile ─► engine ─► scheduler ─► its first pass ─► wake ─► ready
    reload: config read and checked ─► jobs into the store, engine's setup swapped, no claim in between ─► the rest
    stop:   scheduler paused and engine draining at once ─► engine stopped ─► the rest ─► the process ends

The main thread only waits for a signal and looks every second whether all loops are alive; a loop that died stops the
daemon loudly, since a daemon that half works is worse than one that its supervisor restarts.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from batchd import systemd
from batchd.alerts.alerting import Alerting
from batchd.alerts.channel import Surroundings
from batchd.clock import Clock, SystemClock
from batchd.config.code import code_problems
from batchd.config.load import Config
from batchd.config.param_names import register_names
from batchd.config.source import ConfigSource
from batchd.db.dialect import Topic
from batchd.db.engine import Database, masked
from batchd.domain.job import JsonObject
from batchd.domain.surface import Phase
from batchd.engine.line_writer import LineWriter
from batchd.engine.pool import Engine
from batchd.errors import BatchdError, ExitCode
from batchd.jobs.python.enqueuing import use_store
from batchd.listeners import registered
from batchd.listening.listener_loop import Listening
from batchd.loop import Loop
from batchd.scheduler.apscheduler_bridge import LONGEST_WAIT
from batchd.scheduler.reconcile import reconcile
from batchd.scheduler.scheduler import Scheduler
from batchd.service import stacks
from batchd.service.announcer import Announcer
from batchd.service.control_server import ControlServer
from batchd.service.control_socket import folder_of
from batchd.service.first_contact import EXTENSION, FirstContact
from batchd.service.first_work import Work, bring_up_to_date, first_work
from batchd.service.http_surface import NoWeb, Web, require_token
from batchd.service.part import Part
from batchd.service.process_log import ProcessLog
from batchd.service.pulse import Pulse, complaint_of
from batchd.service.reload import Reloader
from batchd.service.room_settings import engine_config, engine_settings, scheduler_settings
from batchd.signals import Signals, leave, process_signals
from batchd.store import listeners, schedules, workers
from batchd.store.single_daemon import hold_sqlite_lock
from batchd.systemd import HandedSocket, ServiceManager
from batchd.telemetry import line_output
from batchd.telemetry.logs import get_logger
from batchd.telemetry.meters import Meters
from batchd.wake_loop import WakeLoop

_LOOK_EVERY = timedelta(seconds=1)
_STOP_NOTICED = timedelta(seconds=0.05)
_AFTER_GRACE = timedelta(seconds=5)
"""What a stop may take after the grace: cancel statements, give runs back, flush."""

_LAST_LINES = timedelta(seconds=2)
_SLOW_READER_SECONDS = 10
"""For whoever reads stdout to take the last lines: only while no run is left, which others may have begun already."""

_LAST_MESSAGE = timedelta(seconds=5)
"""For an alert on its way: one that is cut off goes again at the next start."""

log = get_logger()


def run(source: ConfigSource, *, no_wait: bool) -> ExitCode:
    """Run the daemon on the config until a signal stops it, and return the exit code; main thread only.

    The config's folder becomes the working directory, so that a relative path in it means the same however the daemon
    was started. A clean stop does not return: it ends the process with code 0, so that a job's stuck thread cannot keep
    it alive.
    Raises BatchdError when the daemon cannot start: a config with problems or without jobs (unless the source allows
    that), a store that another daemon holds, that is newer than this batchd, or that does not answer in time.
    """
    signals = process_signals()
    manager = systemd.take_over()
    try:
        config = source.read()
    except BatchdError as error:
        manager.notifier.status(f"cannot start: {error.message}")
        raise
    daemon = Daemon(source, config, manager, signals)
    try:
        config.require_jobs(allow_empty=source.allow_empty)
        os.chdir(config.folder)
        with hold_sqlite_lock(daemon.store):
            daemon.fork(manager.sockets)
            code = daemon.run(no_wait=no_wait)
            # Still under the lock: nobody may take the store over before this process is gone.
            leave(code, most_seconds=daemon.may_wait_for_reader)
    except BatchdError as error:
        manager.notifier.status(f"cannot start: {error.message}")
        # The caller prints the message; a traceback would only hide it.
        log.error("service.failed", reason=error.message, exit_code=int(error.exit_code))  # noqa: TRY400
        daemon.end_web()
        raise
    return code


class Daemon:
    """Every part of the running process. `run` does it all; the main thread calls it once."""

    def __init__(self, source: ConfigSource, config: Config, manager: ServiceManager, signals: Signals) -> None:
        self._clock: Clock = SystemClock()
        self._worker = workers.this_process()
        self._logs = ProcessLog(self._worker.id)
        self._logs.follow(config)
        _tell_start(config)
        self._source = source
        self._signals = signals
        self._stop = signals.asked
        self._notifier = manager.notifier
        self._began_at = self._clock.now()
        self._has_stopping_told = False
        self._passed = threading.Event()
        self.may_wait_for_reader = _SLOW_READER_SECONDS
        self._web: Web = NoWeb()
        self._first_work: Work | None = None
        self._meters = Meters(job.name for job in config.jobs)
        self.store = Database(config.store)
        self._databases = {name: Database(settings) for name, settings in config.databases.items()}
        self._engine = Engine(
            store=self.store,
            settings=engine_settings(config),
            config=engine_config(config, self._databases, self._logs.masker),
            worker=self._worker,
            clock=self._clock,
            meters=self._meters,
        )
        self._pulse = Pulse(self._notifier, manager.watchdog, self._complaint, self._clock)
        self._scheduler = Scheduler(
            self.store,
            scheduler_settings(config),
            self._clock,
            on_planned=lambda: self._engine.wake(frozenset({Topic.RUNS})),
            on_turn=self._turned,
            longest_wait=self._pulse.every or LONGEST_WAIT,
            meters=self._meters,
        )
        self._wakes = WakeLoop(self.store, self._wake, self._clock)
        self._lines = LineWriter(self.store, self._logs.buffer, self._clock)
        self._listening = Listening(self.store, registered(), self._worker.id, self._clock)
        self._alerting = self._alerting_by(config)
        self._reloader = Reloader(source, config, self, self._worker.id)
        self._announcer = Announcer(self._notifier, self._engine, self._scheduler, self._reloader, self._clock)
        self._control = ControlServer(folder_of(config.state, source.environ), source.path, self._reloader.reload)

    def fork(self, handed: Sequence[HandedSocket]) -> None:
        """Fork who does the first work, before anything makes a thread; listen, if there is an HTTP surface."""
        config = self._config
        self._first_work = first_work(config)
        if config.http is not None:
            from batchd import surface  # noqa: PLC0415 (a daemon without [http] imports nothing of it)

            self._web = surface.listen(config, config.http, self._clock, self._source, handed)

    def end_web(self) -> None:
        """End the HTTP surface."""
        self._web.stop()

    def run(self, *, no_wait: bool) -> ExitCode:
        """Start, serve until asked to stop or a loop died, stop; return the exit code."""
        self._signals.attach(self._hear)
        self._beat(Phase.STARTING)
        patience = self._config.settings.store.wait_at_start
        contact = FirstContact(self._stop, self._notifier, self._clock, patience, self._web)
        if not contact.make(lambda: self._prepare(contact), no_wait=no_wait):
            self.end_web()
            return ExitCode.OK
        use_store(self.store)
        self._engine.start()
        self._scheduler.start()
        for loop in self._side_loops():
            loop.start()
        self._listening.start()
        self._alerting.start()
        for problem in code_problems(self._config):
            # Told and gone on: one job's code that cannot be imported is no reason to keep the others from running.
            log.error("target.invalid", job=problem.section.removeprefix("jobs."), reason=problem.message)
        self._web.watch(self._counted)
        code = self._await_first_pass()
        if code is None:
            self._control.start()
            self._beat(Phase.SERVING)
            log.info("service.ready", worker=self._worker.id, jobs=len(self._config.jobs))
            self._announcer.ready()
            code = self._serve()
        self._shut_down(code)
        log.info("service.stopped", exit_code=int(code))
        return code

    def reloading(self) -> None:
        """Tell systemd that a reload begins."""
        self._notifier.reloading("reading the config again")

    def reloaded(self) -> None:
        """Tell systemd that it is over, whatever came of it."""
        self._announcer.ready()

    def take_over(self, config: Config) -> None:
        """Go over to another config, all of it or nothing; raises BatchdError when nothing has changed.

        First what can fail: the jobs go into the store. Then, before anything is claimed again, the engine's setup is
        swapped. What runs keeps the setup that it was claimed with; so do the pools of databases that changed or went,
        until it has ended.
        """
        self._logs.learn(config.secrets)
        before = self._databases
        databases = {
            name: before[name] if name in before and before[name].settings == settings else Database(settings)
            for name, settings in config.databases.items()
        }

        is_alike = (config.alerts, config.mail) == (self._config.alerts, self._config.mail)
        alerting = None if is_alike else self._alerting_by(config)

        def commit() -> None:
            register_names(self.store, config.kinds, config.settings.queues)
            if alerting is not None:
                alerting.prepare()
            reconcile(self.store, config.jobs, self._clock)

        known = engine_config(config, databases, self._logs.masker)
        self._engine.reconfigure(engine_settings(config), known, commit)
        self._databases = databases
        self._logs.follow(config)
        self._scheduler.reconfigure(scheduler_settings(config))
        self._meters.know(job.name for job in config.jobs)
        if alerting is not None:
            self._change_alerting(alerting)
        self._web.reload()

    def next_runs(self, jobs: tuple[str, ...]) -> Mapping[str, datetime | None]:
        """Return when each of the jobs fires next."""
        return schedules.next_runs(self.store, jobs)

    def say_config_error(self, error: str | None) -> None:
        """Have the store know why the config was refused; None: it was not."""
        self._meters.config_loaded(self._clock.now(), successful=error is None)
        self._engine.say_config_error(error)

    @property
    def _config(self) -> Config:
        return self._reloader.config

    def _hear(self, received: signal.Signals) -> None:
        """Act on a signal, on the signals' own thread, which must never wait for anything."""
        match received:
            case signal.SIGTERM | signal.SIGINT if self._has_stopping_told:
                log.warning("service.stopping_now", signal=received.name)
            case signal.SIGTERM | signal.SIGINT:
                self._has_stopping_told = True
                log.info("signal.received", signal=received.name)
            case signal.SIGHUP:
                log.info("signal.received", signal=received.name)
                self._control.ask()
            case signal.SIGUSR1:
                stacks.dump(self._engine.active(), self._clock.monotonic())
            case signal.SIGUSR2 if self._engine.is_quiet:
                log.warning("service.claiming_again")
                self._engine.be_quiet(quiet=False)
            case signal.SIGUSR2:
                log.warning("service.quiet")
                self._engine.be_quiet(quiet=True)

    def _prepare(self, contact: FirstContact) -> None:
        """Bring the store up to date; all of it may be done again when the store went away in the middle."""
        with self.store.reading():
            contact.has_answered()
        self._notifier.status("the store answers; bringing its tables and schedules up to date")
        if bring_up_to_date(self.store, self._config, self._first_work):
            log.info("store.migrated")
        require_token(self._config, self.store)
        reconcile(self.store, self._config.jobs, self._clock)
        self._listening.prepare()
        self._alerting.prepare()
        if self._config.http is not None:
            listeners.wish_for_starts(self.store)
        self._engine.prepare()
        register_names(self.store, self._config.kinds, self._config.settings.queues)
        self._scheduler.queue_reboots(self._began_at)
        if self._config.http is not None:
            self.store.close()  # no connection goes through a fork

    def _alerting_by(self, config: Config) -> Alerting:
        around = Surroundings(config.mail, self._clock, self._logs.masker.text)
        return Alerting(self.store, config.alerts, self._worker.id, self._clock, around)

    def _change_alerting(self, alerting: Alerting) -> None:
        """Let others judge and deliver from now on; what is on its way ends first, by its lease."""
        before = self._alerting
        alerting.start()
        self._alerting = alerting  # in one step: the main thread looks whether it is alive
        before.stop(self._clock.monotonic() + _LAST_MESSAGE.total_seconds())

    def _await_first_pass(self) -> ExitCode | None:
        """Wait for the scheduling loop's first good pass and return None; or the exit code of a start that ends."""
        patience = self._config.settings.store.wait_at_start.total_seconds()
        gives_up_at = self._clock.monotonic() + patience
        while not self._passed.wait(_STOP_NOTICED.total_seconds()):
            if self._stop.is_set():
                return ExitCode.OK
            if self._clock.monotonic() > gives_up_at:
                log.error("service.failed", reason="nothing could be planned", exit_code=ExitCode.STORE_UNREACHABLE)
                return ExitCode.STORE_UNREACHABLE
            if self._scheduler.passes.is_store_away:
                self._notifier.status("waiting for the store: it went away during the start")
                self._notifier.extend(EXTENSION)
        return None

    def _turned(self) -> None:
        """Be called by the scheduling loop, on its thread, at least twice in the watchdog's time."""
        if self._scheduler.last_pass_at is not None:
            self._passed.set()
        self._pulse.beat()

    def _complaint(self) -> str | None:
        dead = () if self._engine.is_alive else (self._engine.name,)
        return complaint_of(self._scheduler.passes, self._engine.oldest_turn(), dead, self._clock.monotonic())

    def _serve(self) -> ExitCode:
        while not self._stop.wait(_LOOK_EVERY.total_seconds()):
            self._beat(Phase.SERVING)
            # Twice: between the two steps of one look a reload may have put another part in the place of one.
            dead = self._dead_parts() and self._dead_parts()
            if dead:
                log.critical("service.failed", reason=f"died: {', '.join(dead)}", exit_code=int(ExitCode.INTERNAL))
                return ExitCode.INTERNAL
            self._announcer.look()
        return ExitCode.OK

    def _dead_parts(self) -> list[str]:
        parts: tuple[Part, ...] = (
            *(self._engine, self._scheduler, self._listening, self._alerting, self._control),
            *self._side_loops(),
        )
        return [part.name for part in parts if not part.is_alive]

    def _shut_down(self, code: ExitCode) -> None:
        """Stop in reverse order. Nothing is planned or claimed from the first lines on."""
        line_output.wait_no_more()
        grace = self._config.settings.daemon.shutdown_grace
        deadline = self._clock.monotonic() + (grace + _AFTER_GRACE).total_seconds()
        threading.Thread(target=self._leave_at, args=(deadline, code), name="batchd-last-resort", daemon=True).start()
        self._beat(Phase.DRAINING)
        self._reloader.close()
        self._scheduler.pause()
        self._engine.drain()
        self._announcer.stopping()
        log.info("service.draining", runs=[attempt.claim.run_id for attempt in self._engine.active()])
        self._control.stop()
        self._wakes.request_stop()
        self._listening.request_stop()
        self._alerting.request_stop()
        if not self._engine.stop(deadline, self._announcer.draining):
            self.may_wait_for_reader = 1
        self._scheduler.stop(min(deadline, self._clock.monotonic() + _LAST_LINES.total_seconds()))
        self._listening.stop(min(deadline, self._clock.monotonic() + _LAST_LINES.total_seconds()))
        self._alerting.stop(min(deadline, self._clock.monotonic() + _LAST_MESSAGE.total_seconds()))
        self._lines.flush(self._clock.monotonic() + _LAST_LINES.total_seconds())
        self.end_web()

    def _leave_at(self, deadline: float, code: ExitCode) -> None:
        """End the process soon after the deadline: a store that neither answers nor breaks may hang the main thread."""
        last = timedelta(seconds=deadline - self._clock.monotonic()) + _LAST_LINES
        threading.Event().wait(last.total_seconds())
        leave(code, lambda: log.warning("service.stop_forced", exit_code=int(code)))

    def _beat(self, phase: Phase) -> None:
        """Tell the HTTP surface how old the signs of life are; it judges them, also when this process cannot."""
        self._web.beat(phase, planned_at=self._scheduler.last_pass_end, renewed_at=self._engine.last_renewal)

    def _counted(self) -> JsonObject:
        return {**self._meters.snapshot(), "slots": dict(self._engine.slots), "worker": self._worker.id}

    def _side_loops(self) -> tuple[Loop, ...]:
        return (self._wakes, self._lines)

    def _wake(self, topics: frozenset[Topic]) -> None:
        self._engine.wake(topics)
        if Topic.SCHEDULES in topics:
            self._scheduler.wake()


def _tell_start(config: Config) -> None:
    log.info("service.starting", config=str(config.path), store=masked(config.store.url), jobs=len(config.jobs))
    for warning in config.warnings:
        log.warning("config.warning", problem=str(warning))
