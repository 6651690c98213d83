"""Kinds for the end-to-end tests, registered as any other package registers its own: through entry points."""

from __future__ import annotations

import ctypes
import threading
import time
from datetime import timedelta
from pathlib import Path

from pydantic import Field
from sqlalchemy import Column, Integer, MetaData, Table, insert

from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.params import Duration, Secret

appended = Table("appended", MetaData(), Column("run_id", Integer, nullable=False))
"""One row for each effect that a run of `append` has had; the test makes the table."""


class NoParams(Params):
    """Nothing to say."""


class AppendParams(Params):
    """Where to append."""

    database: str = Field(description="The database with the table.")


class SleepParams(Params):
    """How long to be busy."""

    time: Duration = Field(default=timedelta(seconds=1), description="How long the run takes.")
    stubborn: bool = Field(default=False, description="Whether it ignores that it should stop.")
    token: Secret | None = Field(default=None, description="A secret that nobody may ever see.")


class CountParams(Params):
    """How far to count, and where to stumble."""

    to: int = Field(default=20, ge=1, description="The last number.")
    pause: Duration = Field(default=timedelta(milliseconds=50), description="Pause before each number.")
    stumble_at: int | None = Field(default=None, description="The number at which the first attempt fails.")


class FailParams(Params):
    """What to complain about."""

    message: str = Field(default="as asked", description="The error.")
    token: Secret | None = Field(default=None, description="A secret that the error quotes.")


class ClockParams(Params):
    """When it was queued, and where to say how long it took from there to here."""

    queued_at: float = Field(description="The moment, in seconds of the machine's clock.")
    file: str = Field(description="The file to append the seconds to.")


def _noop(params: NoParams, context: JobContext) -> JsonObject:
    return {}


def _clock(params: ClockParams, context: JobContext) -> JsonObject:
    late = time.time() - params.queued_at
    with Path(params.file).open("a") as file:
        file.write(f"{late}\n")
    return {}


def _append(params: AppendParams, context: JobContext) -> JsonObject:
    database = context.database(params.database)
    if context.checkpoint(database) is None:
        with context.writing(database) as connection:
            connection.execute(insert(appended).values(run_id=context.run_id))
            context.save_checkpoint(connection, database, {"appended": True})
    return {"appended": 1}


def _sleep(params: SleepParams, context: JobContext) -> JsonObject:
    if params.stubborn:
        until = context.now() + params.time
        while context.now() < until:
            sum(range(10_000))
    else:
        context.wait(params.time)
    return {"slept_seconds": params.time.total_seconds()}


def _count(params: CountParams, context: JobContext) -> JsonObject:
    """Count, log each number, and remember how far it came."""
    begin = int((context.recorded() or {}).get("reached", 0))
    for number in range(begin + 1, params.to + 1):
        context.wait(params.pause)
        context.log.info("counted", number=number)
        context.progress(number, params.to, "numbers")
        context.record({"reached": number})
        if number == params.stumble_at and begin == 0:
            raise JobError("stumbled, as asked")
    return {"rows": params.to, "began_at": begin}


def _fail(params: FailParams, context: JobContext) -> JsonObject:
    raise JobError(params.message if params.token is None else f"{params.message} {params.token.get_secret_value()}")


def _end_a_loop(params: NoParams, context: JobContext) -> JsonObject:
    """End a loop of the daemon as no exception that it catches could: what a bug in the interpreter would do."""
    loop = next(thread for thread in threading.enumerate() if thread.name == "batchd-line-writer")
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(loop.ident or 0), ctypes.py_object(SystemExit))
    return {}


NOOP = Kind("noop", "Do nothing.", NoParams, _noop, '[jobs.noop]\nkind = "noop"\n', lambda params: ())
CLOCK = Kind(
    "clock",
    "Say how long after its queueing it began.",
    ClockParams,
    _clock,
    '[jobs.clock]\nkind = "clock"\nqueued_at = 0.0\nfile = "late"\n',
    lambda params: (),
)
APPEND = Kind(
    "append",
    "Append one row, exactly once.",
    AppendParams,
    _append,
    '[jobs.append]\nkind = "append"\ndatabase = "app"\n',
    lambda params: (params.database,),
)
SLEEP = Kind("sleep", "Be busy.", SleepParams, _sleep, '[jobs.sleep]\nkind = "sleep"\n', lambda params: ())
COUNT = Kind(
    "count",
    "Count.",
    CountParams,
    _count,
    '[jobs.count]\nkind = "count"\n',
    lambda params: (),
    adjustable=frozenset(CountParams.model_fields),
)
FAIL = Kind("fail", "Fail.", FailParams, _fail, '[jobs.fail]\nkind = "fail"\n', lambda params: ())
END_A_LOOP = Kind(
    "end_a_loop", "Break the daemon.", NoParams, _end_a_loop, '[jobs.end]\nkind = "end_a_loop"\n', lambda params: ()
)
