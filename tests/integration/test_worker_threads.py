"""The threads that execute runs: as many as the config says, also when it says something else."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from batchd.clock import SystemClock
from batchd.engine.worker import Waiting, WorkerThreads
from tests.support.waiting import wait_until


class Work:
    """Attempts that end when they are let go."""

    def __init__(self) -> None:
        self.going_on: set[int] = set()
        self._gates: dict[int, threading.Event] = {}

    def one(self, number: int) -> Any:
        """Return an attempt."""
        self._gates[number] = threading.Event()
        return SimpleNamespace(number=number, claimed_at=SystemClock().monotonic())

    def execute(self, attempt: Any) -> None:
        """Go on until let go."""
        self.going_on.add(attempt.number)
        assert self._gates[attempt.number].wait(60)
        self.going_on.discard(attempt.number)

    def let_go(self, *numbers: int) -> None:
        """End these."""
        for number in numbers:
            self._gates[number].set()


def test_more_threads_begin_what_waits_and_fewer_end_what_they_execute() -> None:
    """From one to three and to two: nothing that runs is touched, and who is too many leaves when it is through."""
    work, waiting = Work(), Waiting(SystemClock(), 1)
    threads = WorkerThreads(1, waiting, work.execute)
    threads.start()
    waiting.put([work.one(number) for number in range(6)])
    wait_until(lambda: work.going_on == {0}, what="one run at work")
    threads.resize(3)
    wait_until(lambda: work.going_on == {0, 1, 2}, what="three runs at work")

    threads.resize(2)
    work.let_go(0)
    wait_until(lambda: work.going_on == {1, 2} and len(threads._threads) == 2, what="a thread that has left")
    work.let_go(1)
    wait_until(lambda: work.going_on == {2, 3}, what="the next of two at work")

    threads.resize(1)
    threads.resize(2)
    work.let_go(2, 3)
    wait_until(lambda: work.going_on == {4, 5}, what="two at work, as there were before")
    assert threads.are_alive
    work.let_go(4, 5)
    wait_until(lambda: waiting.idle() == 2, what="two idle threads")
    waiting.close()
