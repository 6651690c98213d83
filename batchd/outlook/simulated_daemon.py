"""One daemon of a simulated world, which can be started, stopped, killed and frozen, and whose clock can be stepped."""

from __future__ import annotations

from datetime import timedelta

from batchd.db.dialect import Topic
from batchd.outlook.machine import Machine
from batchd.outlook.simulated_process import LONGEST_WAIT, SimulatedProcess


class SimulatedDaemon:
    """At most one process at a time on one machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.lives = 0
        self._process: SimulatedProcess | None = None
        self._wants_to_run = False

    @property
    def is_up(self) -> bool:
        """Whether a process runs, be it draining or frozen."""
        return self._process is not None

    def start(self) -> None:
        """Start a process, or do so as soon as the one that is stopping is gone."""
        self._wants_to_run = True
        if self._process is None:
            self.lives += 1
            self._process = SimulatedProcess(self.machine, self.lives, self._gone)
            self._process.start()

    def stop(self) -> None:
        """Send SIGTERM: nothing new begins, runs get their grace, the rest is given back."""
        self._wants_to_run = False
        if self._process is not None:
            self._process.drain()

    def kill(self) -> None:
        """End the process without a word (kill -9, a power cut)."""
        self._wants_to_run = False
        if self._process is not None:
            self._process.end()
            self._process = None
            self.machine.forget()

    def freeze(self) -> None:
        """Stop the process where it is (SIGSTOP, a laptop's lid)."""
        self.machine.is_frozen = self.is_up

    def thaw(self) -> None:
        """Let it go on."""
        self.machine.thaw()

    def step_clock(self, by: timedelta) -> None:
        """Step this machine's wall clock; the scheduler notices at its next look."""
        self.machine.clock.ahead += by
        if self._process is not None:
            self._process.planning.wake(LONGEST_WAIT)

    def hear(self, topics: frozenset[Topic]) -> None:
        """Let the loops look, as a NOTIFY does."""
        if self._process is not None:
            self._process.hear(topics)

    def _gone(self) -> None:
        self._process = None
        self.machine.forget()
        if self._wants_to_run:
            self.start()
