"""What the processes of one simulated daemon have in common: its machine, its config, its clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from batchd.db.engine import Database
from batchd.engine.settings import EngineSettings
from batchd.outlook.workload import Workload
from batchd.outlook.world import Event, SimulatedClock, World


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How closely the loops are followed.

    `heartbeats`: leases are renewed, and taken back when they end; without them `EngineSettings.lease` must outlast the
    simulation, which is right where no daemon dies while another lives, and far quicker. `looks_often`: the loops look
    as often as they do; without it only when something may have changed. `ahead`: claimed runs that may wait for a
    thread. `plan_delay`: the longest time between looking what is due and planning it.
    """

    heartbeats: bool = False
    looks_often: bool = False
    ahead: int = 0
    plan_delay: timedelta = timedelta(0)


@dataclass(slots=True)
class Machine:
    """One machine with one daemon.

    `surprises` collects errors of loops that are not
    batchd's own: there should be none. `worked` is how far unfinished runs are, by run.
    """

    name: str
    world: World
    store: Database
    store_id: str
    settings: EngineSettings
    workload: Workload
    clock: SimulatedClock
    fidelity: Fidelity
    random: Random
    surprises: list[str]
    worked: dict[int, timedelta]
    is_frozen: bool = False
    _waiting: list[Event] = field(default_factory=list)

    def may(self, again: Event) -> bool:
        """Return whether the process may act now; if it is frozen, `again` is called when it thaws."""
        if self.is_frozen:
            self._waiting.append(again)
        return not self.is_frozen

    def thaw(self) -> None:
        """Let the process act again."""
        self.is_frozen = False
        waiting, self._waiting = self._waiting, []
        for again in waiting:
            again()

    def forget(self) -> None:
        """Forget what a process that is gone was about to do."""
        self.is_frozen = False
        self._waiting = []
