"""The daemon's side of an isolated run: serves what the child asks for, and kills it when it must end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NoReturn

from batchd.clock import SystemClock
from batchd.domain.job import JsonObject
from batchd.errors import RunInterrupted, StopReason, TargetRaised
from batchd.jobs.contract import JobContext
from batchd.jobs.processes import wire_errors
from batchd.jobs.processes.channel import ChannelClosed, Message
from batchd.jobs.processes.death import died, oom_kills, too_large
from batchd.jobs.processes.memory import private_with_children
from batchd.jobs.processes.order import order_for
from batchd.jobs.processes.pool import ProcessPool, Recycling
from batchd.jobs.processes.process import WorkerProcess
from batchd.store.enqueue import NewRun

_TURN = timedelta(seconds=0.1)
_UNWIND_SECONDS = 1.0
"""How long a function may clean up behind itself after its end was ordered."""

_LONGEST_WORDS = 8_000


def run_isolated(
    target: str,
    arguments: JsonObject,
    context: JobContext,
    *,
    pool: ProcessPool,
    recycling: Recycling,
    max_memory: int | None,
) -> JsonObject:
    """Call the function in a process of its own and return its result.

    Raises what it raised, as TargetRaised with its traceback there, or ProcessDied with how the process died.
    """
    process = pool.take()
    is_whole = False
    try:
        conversation = _Conversation(process, context, max_memory)
        with context.when_cancelled(conversation.end_soon):
            process.begin_output()
            process.send(order_for(target, arguments, max_memory, context).as_message())
            ending = conversation.until_ended()
        is_whole = True
    finally:
        if not is_whole:
            pool.end(process, "its run did not end in order")
    pool.give_back(process, recycling)
    if "raised" in ending:
        raise _raised(ending["raised"], max_memory)
    result: JsonObject = ending["returned"]
    return result


def _raised(said: dict[str, Any], max_memory: int | None) -> BaseException:
    error = wire_errors.from_message(said)
    if isinstance(error, TargetRaised) and error.type_name == "MemoryError" and max_memory is not None:
        limit = f"the run may have max_memory = {max_memory / 1e6:.0f} MB; raise it, or work in smaller chunks"
        return TargetRaised(error.type_name, f"out of memory: {limit}", error.traceback)
    return error


class _Conversation:
    """One run's talk with its process, on the attempt's thread; `end_soon` comes from another."""

    def __init__(self, process: WorkerProcess, context: JobContext, max_memory: int | None) -> None:
        self._process = process
        self._context = context
        self._max_memory = max_memory
        self._clock = SystemClock()
        self._oom_kills = oom_kills()
        self._told: StopReason | None = None
        self._ordered: StopReason | None = None
        self._kill_at: float | None = None
        self._look_again_at = 0.0

    def end_soon(self, reason: StopReason) -> None:
        """Note that the run must end now."""
        self._ordered = reason

    def until_ended(self) -> Message:
        """Serve the run until it tells how it ended, and return that; raises RunInterrupted, ProcessDied."""
        while True:
            try:
                messages, lines = self._process.hear(_TURN)
            except ChannelClosed:
                self._mourn()
            self._log_lines(lines)
            for message in messages:
                if "returned" in message or "raised" in message:
                    self._log_lines(self._process.printed())
                    return message
                self._serve(message)
            if not messages and not self._process.is_alive:
                self._mourn()  # what it forked may hold the channel open
            self._look_at_stop()
            self._look_at_memory()

    def _serve(self, message: Message) -> None:
        match message:
            case {"log": level, "event": event, "fields": fields}:
                getattr(self._context.log, level)(event, **fields)
            case {"progress": reached}:
                self._context.progress(**reached)
            case {"ask": method, "number": number, "arguments": arguments}:
                self._process.send({"answer": number, **self._answer(method, arguments)})

    def _answer(self, method: str, arguments: Mapping[str, Any]) -> Message:
        try:
            return {"value": _METHODS[method](self._context, **arguments)}
        except BaseException as error:  # noqa: BLE001 (it is the function's to deal with)
            return {"raised": wire_errors.as_message(error)}

    def _look_at_stop(self) -> None:
        """Tell the run that it should stop; kill it when it must end and has had its time."""
        if self._told is None:
            with contextlib.suppress(RunInterrupted):
                self._context.raise_if_stopping()
                return
            self._told = _reason(self._context)
            self._process.send({"stop": self._told.value, "now": False})
        if self._ordered is None:
            return
        now = self._clock.monotonic()
        if self._kill_at is None:
            self._kill_at = now + (0 if self._ordered is StopReason.LEASE_LOST else _UNWIND_SECONDS)
            self._process.send({"stop": self._ordered.value, "now": True})
        if now >= self._kill_at:
            raise RunInterrupted(self._ordered)

    def _look_at_memory(self) -> None:
        if self._max_memory is not None and self._clock.monotonic() >= self._look_again_at:
            self._look_again_at = self._clock.monotonic() + _TURN.total_seconds()
            used = private_with_children(self._process.pid)
            if used > self._max_memory:
                raise too_large(used, self._max_memory)

    def _mourn(self) -> NoReturn:
        """Raise what the process died of."""
        status = self._process.bury()
        words = "\n".join(self._process.last_lines)[-_LONGEST_WORDS:]
        raise died(status, words, oom_kills_before=self._oom_kills)

    def _log_lines(self, lines: list[str]) -> None:
        log = self._context.log
        for line in lines:
            log.info("process.output", text=line)


def _reason(context: JobContext) -> StopReason:
    try:
        context.raise_if_stopping()
    except RunInterrupted as interrupted:
        return interrupted.reason
    return StopReason.CANCELLED


def _queue(context: JobContext, runs: list[dict[str, Any]]) -> tuple[int, ...]:
    return context.enqueue(*(NewRun(**run) for run in runs))


_METHODS: Mapping[str, Callable[..., Any]] = {
    "previous_result": lambda context: context.previous_result,
    "checkpoint": lambda context, database: context.checkpoint(context.database(database)),
    "watermark": lambda context, database: context.watermark(context.database(database)),
    "recorded": lambda context: context.recorded(),
    "record": lambda context, state: context.record(state),
    "enqueue": _queue,
}
"""What a child may ask for: nothing else of the daemon is within its reach."""
