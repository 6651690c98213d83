"""Lives through one trial and says what its ledger breaks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from batchd.db.dialect import DatabaseSettings, Topic
from batchd.db.simulated import SimulatedDatabase, in_memory, on_server
from batchd.domain.run import CreatedBy
from batchd.errors import BatchdError
from batchd.outlook.invariants import Expected, broken_rules
from batchd.outlook.machine import Machine
from batchd.outlook.simulated_daemon import SimulatedDaemon
from batchd.outlook.world import SimulatedClock, World
from batchd.store import control, queue_control
from batchd.store.ledger import Ledger, make_blank, read_ledger
from batchd.store.queries import listed_queues
from batchd.store.schedules import reconcile
from batchd.telemetry.logs import silenced
from tests.simulation.scenario import Misfortune, RandomWork, Trial

_STORE_ID = "00000000-0000-4000-8000-000000000000"
_LONGEST_SETTLING = timedelta(hours=30)
_STEP = timedelta(minutes=10)
_SLACK = timedelta(seconds=1)


@dataclass
class TrialWeather:
    """The store's weather: away, or losing the answers to some of its commits."""

    random: Random
    away: int = 0
    losing: int = 0

    def is_away(self) -> bool:
        return self.away > 0

    def loses_answer(self) -> bool:
        return self.losing > 0 and self.random.random() < 0.2


@dataclass
class Outcome:
    """What a trial came to: `problems` is empty when every promise was kept."""

    ledger: Ledger
    problems: list[str] = field(default_factory=list)


class Stage:
    """The world of one trial."""

    def __init__(self, trial: Trial, server: DatabaseSettings | None) -> None:
        self.trial = trial
        self.world = World(trial.begin)
        self.weather = TrialWeather(Random(f"{trial.seed}:weather"))
        self.store_ahead = timedelta(0)
        self.store = self._open(server)
        self.surprises: list[str] = []
        self.clock_error = timedelta(0)
        self.random = Random(f"{trial.seed}:events")
        self.daemons = [self._daemon(number) for number in range(trial.daemons)]

    def live(self) -> Outcome:
        """Live through it, let it settle, and look at what is left."""
        make_blank(self.store, _STORE_ID)
        reconcile(self.store, self.trial.jobs, self.trial.begin)
        for daemon in self.daemons:
            daemon.start()
        for misfortune in self.trial.misfortunes:
            self.world.after(misfortune.after, lambda it=misfortune: self._befall(it))
        self.world.live_until(self.trial.begin + self.trial.troubled)
        self._settle()
        ledger = read_ledger(self.store)
        expected = Expected(
            self.trial.jobs,
            self.trial.begin,
            clock_error=self._error(),
            rules=self.trial.settings.rules,
            is_settled=True,
        )
        return Outcome(ledger, [*self.surprises, *broken_rules(ledger, expected)])

    def _settle(self) -> None:
        """Let everybody live, plan nothing more, and wait until all that is there has ended."""
        self.weather.away = self.weather.losing = 0
        for daemon in self.daemons:
            daemon.thaw()
            daemon.start()
        self.world.live_until(self.world.now + timedelta(minutes=2))
        for job in self.trial.jobs:
            control.pause(self.store, job.name)
        end = self.world.now + _LONGEST_SETTLING
        while self.world.now < end and self._is_busy():
            self._tell(frozenset({Topic.RUNS}))
            self.world.live_until(self.world.now + _STEP)

    def _is_busy(self) -> bool:
        return any(queue.ready or queue.later or queue.parked or queue.running for queue in listed_queues(self.store))

    def _error(self) -> timedelta:
        return self.clock_error + self.trial.fidelity.plan_delay + _SLACK

    def _now(self) -> datetime:
        return self.world.now + self.store_ahead

    def _open(self, server: DatabaseSettings | None) -> SimulatedDatabase:
        if server is None:
            return in_memory(self._now, self._tell, self.weather)
        return on_server(server, self._now, self._tell, self.weather)

    def _tell(self, topics: frozenset[Topic]) -> None:
        for daemon in self.daemons:
            daemon.hear(topics)

    def _daemon(self, number: int) -> SimulatedDaemon:
        machine = Machine(
            name=f"daemon{number}",
            world=self.world,
            store=self.store,
            store_id=_STORE_ID,
            settings=self.trial.settings,
            workload=RandomWork(self.trial.seed),
            clock=SimulatedClock(self.world),
            fidelity=self.trial.fidelity,
            random=Random(f"{self.trial.seed}:{number}"),
            surprises=self.surprises,
            worked={},
        )
        return SimulatedDaemon(machine)

    def _befall(self, it: Misfortune) -> None:
        daemon = self.daemons[it.which]
        match it.what:
            case "kill":
                daemon.kill()
                self.world.after(it.lasting, daemon.start)
            case "stop":
                daemon.stop()
                self.world.after(it.lasting, daemon.start)
            case "freeze":
                self.clock_error += it.lasting  # what was read before may be written after
                daemon.freeze()
                self.world.after(it.lasting, daemon.thaw)
            case "clock":
                self.clock_error += abs(it.lasting)
                daemon.step_clock(it.lasting)
            case "store-clock":
                self.clock_error += it.lasting
                self.store_ahead += it.lasting
            case "outage":
                self.weather.away += 1
                self.world.after(it.lasting, lambda: self._end("away"))
            case "answers":
                self.weather.losing += 1
                self.world.after(it.lasting, lambda: self._end("losing"))
            case "cancel" | "queue":
                with contextlib.suppress(BatchdError):
                    self._meddle(it)

    def _end(self, what: str) -> None:
        setattr(self.weather, what, max(0, getattr(self.weather, what) - 1))

    def _meddle(self, it: Misfortune) -> None:
        """What a person does meanwhile."""
        if it.what == "queue":
            self.world.after(it.lasting, self._resume)  # first: the pause may count, and its answer be lost
            queue_control.pause(self.store, self.trial.jobs[0].queue)
            return
        control.trigger(self.store, self.random.choice(self.trial.jobs).name, {}, created_by=CreatedBy.CLI)
        ledger = read_ledger(self.store)
        unfinished = [run.id for run in ledger.runs if run.finished_at is None]
        if unfinished:
            control.request_cancel(self.store, self.random.choice(unfinished))

    def _resume(self) -> None:
        try:
            queue_control.resume(self.store, self.trial.jobs[0].queue)
        except BatchdError:
            self.world.after(timedelta(seconds=30), self._resume)


def live_through(trial: Trial, server: DatabaseSettings | None = None) -> Outcome:
    """Return what the trial comes to; on SQLite in memory, or in the empty database of a server."""
    with silenced():
        stage = Stage(trial, server)
        with contextlib.closing(stage.store):
            return stage.live()
