"""The child: `python -P -m batchd.jobs.processes.worker DESCRIPTOR PARENT`, started by `process.WorkerProcess`.

Its main thread calls one function after another; a second thread reads the socket, so that a stop, an answer and the
daemon's end are heard meanwhile. What logging and printing say goes to the run's log.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import itertools
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.errors import ExitCode, StopReason
from batchd.jobs.processes import wire_errors
from batchd.jobs.processes.channel import Channel, ChannelClosed, Message
from batchd.jobs.processes.order import Order, read_order
from batchd.jobs.processes.remote_context import RemoteContext
from batchd.jobs.python.call import call, find_function
from batchd.jobs.python.enqueuing import configure
from batchd.jobs.targets import extend_import_path

_PR_SET_PDEATHSIG = 1


class Worker:
    """Serves orders until the channel closes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[Any]] = {}
        self._databases: dict[DatabaseSettings, Database] = {}
        self._context: RemoteContext | None = None
        self._stop: tuple[StopReason, bool] | None = None
        self._store_url: str | None = None

    def serve(self) -> None:
        """Do what is ordered; the reader's thread ends the process."""
        threading.Thread(target=self._listen, name="batchd-reader", daemon=True).start()
        while True:
            self._channel.send(self._done(self._orders.get()))

    def _done(self, order: Order) -> Message:
        """Return how it ended; whatever the function does, short of ending the process."""
        try:
            with limited_memory(order.max_memory):
                return {"returned": self._call(order)}
        except BaseException as error:  # noqa: BLE001 (a SystemExit is the run's, not the process's)
            return {"raised": wire_errors.as_message(error)}
        finally:
            self._context = None
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()

    def _call(self, order: Order) -> JsonObject:
        extend_import_path([Path(folder) for folder in order.import_path])
        self._name_store(order.handover.store.url)
        databases = {name: self._database(settings) for name, settings in order.handover.databases.items()}
        context = RemoteContext(order, databases, self._ask, self._channel.send)
        self._context = context
        if self._stop is not None:  # it came before the run had begun
            context.stop(self._stop[0], now=self._stop[1])
        try:
            function = find_function(order.target)
            context.raise_if_stopping()
            return call(function, order.arguments, context)
        finally:
            context.close()

    def _name_store(self, url: str) -> None:
        """Let threads that a function starts, which are inside no run, queue theirs in the same store."""
        if url != self._store_url:
            configure(url)
            self._store_url = url

    def _database(self, settings: DatabaseSettings) -> Database:
        """Return the database, the same for every run of this process."""
        if settings not in self._databases:
            self._databases[settings] = Database(settings)
        return self._databases[settings]

    def _ask(self, method: str, arguments: dict[str, Any]) -> Any:
        """Call a method of the daemon's context and return its answer; raises what it raised."""
        number = next(self._numbers)
        answer: Future[Any] = Future()
        self._answers[number] = answer
        self._channel.send({"ask": method, "number": number, "arguments": arguments})
        return answer.result()

    def _listen(self) -> None:
        try:
            while True:
                for message in self._channel.receive():
                    self._hear(message)
        except ChannelClosed:
            os._exit(0)  # the daemon is gone, or wants no more of this process
        except BaseException:  # noqa: BLE001 (without this thread nothing would be heard any more)
            faulthandler.dump_traceback()
            os._exit(ExitCode.INTERNAL)

    def _hear(self, message: Message) -> None:
        match message:
            case {"order": said}:
                self._stop = None
                self._orders.put(read_order(said))
            case {"stop": reason, "now": now}:
                self._stop = StopReason(reason), now
                if self._context is not None:
                    self._context.stop(StopReason(reason), now=now)
            case {"answer": number, "raised": said}:
                self._answers.pop(number).set_exception(wire_errors.answered(said))
            case {"answer": number, "value": value}:
                self._answers.pop(number).set_result(value)


class _Logged(logging.Handler):
    """Sends the lines of the standard library's logging to the run's log."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.INFO)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(ChannelClosed):
            level = {"CRITICAL": "error", "ERROR": "error", "WARNING": "warning"}.get(record.levelname, "info")
            fields = {"logger": record.name, "text": record.getMessage()}
            self._channel.send({"log": level, "event": "library.message", "fields": fields})


@contextlib.contextmanager
def limited_memory(limit: int | None) -> Iterator[None]:
    """Let allocations fail beyond the limit while the block lasts: MemoryError, with the line that asked for it.

    The limit is on private writable memory (RLIMIT_DATA), not on address space (RLIMIT_AS), of which libraries reserve
    gigabytes that they never touch.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if limit is not None:
        most = limit if before[1] == resource.RLIM_INFINITY else min(limit, before[1])
        resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the daemon's thread that started it ends; see prctl(2)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os._exit(0)


def main(descriptor: int, parent: int) -> None:
    """Serve the daemon at the other end of the socket."""
    die_with_parent(parent)
    faulthandler.enable()
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)  # what a function starts must not keep the channel open
    channel = Channel(end)
    logging.getLogger().handlers = [_Logged(channel)]
    logging.getLogger().setLevel(logging.INFO)
    with contextlib.suppress(ChannelClosed):
        Worker(channel).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
