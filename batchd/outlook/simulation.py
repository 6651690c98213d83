"""A config's jobs on a simulated clock: how a stretch of time would go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

from batchd.db.dialect import Topic
from batchd.db.simulated import in_memory
from batchd.domain.job import JobDefinition
from batchd.domain.lease import LeaseTerms
from batchd.engine.settings import EngineSettings
from batchd.outlook.machine import Fidelity, Machine
from batchd.outlook.simulated_daemon import SimulatedDaemon
from batchd.outlook.workload import DrawnWorkload, Workload
from batchd.outlook.world import SimulatedClock, World
from batchd.store.ledger import Ledger, make_blank, read_ledger
from batchd.store.schedules import reconcile
from batchd.telemetry.logs import silenced

_SLICE = timedelta(hours=12)
_STORE_ID = "00000000-0000-4000-8000-000000000000"
_JUST_BEFORE = timedelta(microseconds=1)
_ENDLESS = LeaseTerms(length=timedelta(days=3650), heartbeat=timedelta(days=365))


@dataclass(frozen=True, slots=True)
class Down:
    """A time in which no daemon runs: stopped at `begin` and started at `end`; `by_kill`: without a word."""

    begin: datetime
    end: datetime
    by_kill: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to live through, from `begin` to `end`."""

    jobs: Sequence[JobDefinition]
    begin: datetime
    end: datetime
    settings: EngineSettings
    workload: Workload = field(default_factory=lambda: DrawnWorkload(seed=1))
    down: Sequence[Down] = ()
    daemons: int = 1
    seed: int = 1


def simulate(scenario: Scenario, on_progress: Callable[[datetime], None] = lambda _now: None) -> Ledger:
    """Return the ledger that the scenario comes to, on a store in memory; always the same for the same scenario.

    `on_progress` is told how far the world is. For the main thread: nothing is logged meanwhile.
    """
    with _a_world(scenario) as (world, daemons, read):
        for down in scenario.down:
            _arrange(world, daemons, down)
        now = scenario.begin
        while now < scenario.end:
            now = min(now + _SLICE, scenario.end)
            world.live_until(now)
            on_progress(now)
        return read()


@contextlib.contextmanager
def _a_world(scenario: Scenario) -> Iterator[tuple[World, list[SimulatedDaemon], Callable[[], Ledger]]]:
    # One killed daemon takes back its own runs when it starts; a killed one among others needs leases that end.
    is_alone = scenario.daemons == 1 or not any(down.by_kill for down in scenario.down)
    settings = replace(scenario.settings, lease=_ENDLESS) if is_alone else scenario.settings
    world = World(scenario.begin)
    daemons: list[SimulatedDaemon] = []

    def tell_all(topics: frozenset[Topic]) -> None:
        for daemon in daemons:
            daemon.hear(topics)

    store = in_memory(lambda: world.now, tell_all)
    with silenced(), contextlib.closing(store):
        make_blank(store, _STORE_ID)
        reconcile(store, scenario.jobs, scenario.begin - _JUST_BEFORE)
        for number in range(1, scenario.daemons + 1):
            machine = Machine(
                name=f"daemon{number}",
                world=world,
                store=store,
                store_id=_STORE_ID,
                settings=settings,
                workload=scenario.workload,
                clock=SimulatedClock(world),
                fidelity=Fidelity(heartbeats=not is_alone),
                random=Random(f"{scenario.seed}:{number}"),  # noqa: S311 (a simulation, no secret)
                surprises=[],
                worked={},
            )
            daemons.append(SimulatedDaemon(machine))
            daemons[-1].start()
        yield world, daemons, lambda: read_ledger(store)
        surprises = [each for daemon in daemons for each in daemon.machine.surprises]
        if surprises:
            raise RuntimeError(f"the simulation met {len(surprises)} errors, the first of them: {surprises[0]}")


def _arrange(world: World, daemons: Sequence[SimulatedDaemon], down: Down) -> None:
    for daemon in daemons:
        world.at(down.begin, daemon.kill if down.by_kill else daemon.stop)
        world.at(down.end, daemon.start)
