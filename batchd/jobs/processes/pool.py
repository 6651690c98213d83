"""The worker processes of this daemon: started when they are needed, used again, ended when idle or grown."""

from __future__ import annotations

import functools
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta

from batchd.clock import SystemClock
from batchd.jobs.processes.guardian import Guardian
from batchd.jobs.processes.process import WorkerProcess
from batchd.telemetry.logs import get_logger

_LOOK_EVERY = timedelta(seconds=30)
_IDLE_FOR = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a process has served enough: after so many runs, or when it holds more memory than this after one."""

    after_runs: int
    above_bytes: int


class ProcessPool:
    """Any thread may call any method. The process that was used last is used first, so that the others can end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._wanted: queue.SimpleQueue[Future[WorkerProcess]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guardian = Guardian()
        self._clock = SystemClock()
        self._log = get_logger()

    def take(self) -> WorkerProcess:
        """Return a process that nobody else has; starts one when none is idle. Raises JobError when that fails."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                self._end(process, "it died while it was idle")
            if self._thread is None:
                # One thread for all of them, which never ends: the kernel kills each with the thread that started it.
                self._thread = threading.Thread(target=self._serve, name="batchd-processes", daemon=True)
                self._thread.start()
        made: Future[WorkerProcess] = Future()
        self._wanted.put(made)
        return made.result()

    def give_back(self, process: WorkerProcess, recycling: Recycling) -> None:
        """Take a process back whose run has ended in order."""
        process.runs += 1
        if process.runs >= recycling.after_runs:
            self._end(process, f"it has served {process.runs} runs")
        elif process.size > recycling.above_bytes:
            self._end(process, f"it has grown to {process.size} bytes")
        else:
            process.idle_since = self._clock.monotonic()
            with self._lock:
                self._idle.append(process)

    def end(self, process: WorkerProcess, reason: str) -> int:
        """Kill a process with its group and return how it ended."""
        return self._end(process, reason)

    def close(self) -> None:
        """End every idle process and the guardian; for tests, since a daemon's die with it."""
        with self._lock:
            for process in self._idle:
                self._end(process, "closed")
            self._idle.clear()
        self._guardian.close()

    def _end(self, process: WorkerProcess, reason: str) -> int:
        status = process.kill()
        self._guardian.forget(process.pid)
        self._log.debug("process.ended", process=process.pid, reason=reason, runs=process.runs, status=status)
        return status

    def _serve(self) -> None:
        while True:
            try:
                wanted = self._wanted.get(timeout=_LOOK_EVERY.total_seconds())
            except queue.Empty:
                self._end_idle()
                continue
            try:
                wanted.set_result(self._start())
            except BaseException as error:  # noqa: BLE001 (handed to whoever waits)
                wanted.set_exception(error)

    def _start(self) -> WorkerProcess:
        process = WorkerProcess()
        self._guardian.watch(process.pid)
        self._log.debug("process.started", process=process.pid)
        return process

    def _end_idle(self) -> None:
        oldest = self._clock.monotonic() - _IDLE_FOR.total_seconds()
        with self._lock:
            for process in [each for each in self._idle if each.idle_since < oldest]:
                self._idle.remove(process)
                self._end(process, "it was idle")


@functools.cache
def pool() -> ProcessPool:
    """Return the processes of this daemon."""
    return ProcessPool()
