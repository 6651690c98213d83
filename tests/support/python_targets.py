"""Functions that a team might write, for jobs of kind `python`, in this process, a daemon's and an isolated one's."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, Field
from sqlalchemy import text

import batchd
from batchd.jobs.contract import JobContext


class Address(BaseModel):
    """A value of several parts."""

    city: str
    zip: str = ""


def add(first: int, second: int = 1) -> int:
    """Add."""
    return first + second


def typed(
    day: date,
    amount: Annotated[Decimal, Field(gt=0)],
    address: Address,
    json: str = "",
    _private: bool = False,  # noqa: FBT002
) -> dict[str, Any]:
    """Return what arrived, whose types only annotations can have made."""
    return {"weekday": day.isoweekday(), "half": amount / 2, "city": address.city, "json": json, "private": _private}


def anything(**arguments: Any) -> dict[str, Any]:
    """Return what arrived."""
    return arguments


def with_watermark(context: JobContext) -> dict[str, Any]:
    """Return the watermark that the last run left, and the one that this run leaves."""
    database = context.database("app")
    before = context.watermark(database)
    with context.writing(database) as connection:
        context.save_watermark(connection, database, {"run": context.run_id})
    return {"before": before, "after": context.watermark(database)}


def with_context(context: JobContext, name: str = "app") -> dict[str, Any]:
    """Use every part of the context that an ordinary job uses."""
    database = context.database(name)
    before = context.checkpoint(database)
    with context.writing(database) as connection:
        connection.execute(text("INSERT INTO effects VALUES (:run)"), {"run": context.run_id})
        context.save_checkpoint(connection, database, {"done": 1})
    context.progress(1, 2, "half")
    context.log.info("greeted", name="Ann")
    logging.getLogger("shop").warning("careful")
    print("printed")
    recorded = context.recorded()
    context.record({"sent": True})
    queued = context.enqueue(batchd.NewRun(kind="other", key="once"), batchd.NewRun(kind="other", delay=timedelta(1)))
    again = context.enqueue(batchd.NewRun(kind="other", key="once"))
    context.raise_if_stopping()
    left = context.time_left()
    return {
        "before": before,
        "recorded": recorded,
        "queued": len(queued),
        "again": len(again),
        "attempt": context.attempt,
        "previous": context.previous_result,
        "time_left": left is not None and left > timedelta(0),
        "pid": os.getpid(),
    }


def walk(context: JobContext) -> int:
    """Walk over rows, batch by batch."""
    database = context.database("app")
    done = 0
    with context.batches(database, table="numbers", key=["n"], size=3) as batches:
        for batch in batches:
            for row in batch.rows:
                batch.connection.execute(text("INSERT INTO effects VALUES (:n)"), row)
                done += 1
    return done


def stop_while_walking(context: JobContext) -> None:
    """Wait until told to stop, in small steps."""
    context.progress(1, 2, "at it")
    while True:
        context.raise_if_stopping()
        time.sleep(0.01)


def query_for_ever(context: JobContext) -> None:
    """Run a statement that only a cancel ends."""
    context.progress(1, 2, "at it")
    database = context.database("app")
    with context.reading(database) as connection:
        connection.execute(
            text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
        ).all()


async def wait_for_ever(context: JobContext) -> None:
    """Wait for what never comes."""
    context.progress(1, 2, "at it")
    await asyncio.Event().wait()


async def later(value: int) -> int:
    """Return a little later."""
    await asyncio.sleep(0.01)
    return value + 1


def verdict(what: str) -> None:
    """Decide about the run."""
    match what:
        case "retry":
            try:
                _deeper()
            except LookupError as error:
                raise batchd.Retry("closed", after=3_600) from error
        case "discard":
            raise batchd.Discard("the user is gone")
        case "snooze":
            raise batchd.Snooze(timedelta(hours=1), "not before noon")
        case "fail":
            _deeper()
        case "refuse":
            raise batchd.JobError("cannot work", hint="try the other door", retryable=False)
        case "exit":
            sys.exit(3)


def _deeper() -> None:
    raise LookupError("nobody knows Bob")


def die(how: str) -> None:
    """End the process in some ugly way."""
    print("last words")
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(5)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "forked":
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        case "abort":
            os.abort()


def hang_in_c(seconds: float = 60) -> None:
    """Hold the interpreter's lock in C, so that no Python thread of this process can do anything."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6)) if seconds < 1 else ctypes.PyDLL(None).sleep(int(seconds))


def hang_with_children(file: str) -> None:
    """Start a child that ignores what it can, write its number, and hang in C."""
    child = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM HUP INT; while :; do sleep 1; done"])
    with open(file + ".part", "w") as out:  # noqa: PTH123
        out.write(f"{os.getpid()} {child.pid}")
    os.rename(file + ".part", file)  # noqa: PTH104
    hang_in_c()


def grow(megabytes: int, *, children: int = 0) -> int:
    """Take memory, touch it, and hold it; or let children do that, each so much."""
    code = (
        f"import time; held = bytearray({megabytes} * 10**6); held[::4096] = b'x' * len(held[::4096]); time.sleep(30)"
    )
    for child in [subprocess.Popen([sys.executable, "-c", code]) for _ in range(children)]:
        child.wait()
    held = [bytearray(10**6) for _ in range(megabytes)]
    return len(held)


def pid() -> int:
    """Return which process this is."""
    return os.getpid()


def leave_a_thread() -> None:
    """Return while a thread goes on."""
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def unreadable(x: NoSuchType) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Have an annotation that nobody can read."""


def generator() -> Any:
    """Be no function that a call runs."""
    yield 1


def not_json() -> Any:
    """Return what no JSON has."""
    return {"thread": threading.current_thread()}


def chatter(context: JobContext, lines: int) -> None:
    """Say something in three ways."""
    for line in range(lines):
        print("line", line)
    logging.getLogger("shop").warning("careful")
    context.log.info("greeted", name="Ann")


def discard_rows(rows: list[dict[str, Any]]) -> None:
    """Say that the whole run is not worth doing."""
    raise batchd.Discard(f"{len(rows)} rows too many")
