"""Functions that a team might write, for jobs of kind `each_row`, in this process and in a daemon's."""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy import Connection, text

from batchd.errors import JobError
from batchd.jobs.contract import JobContext

TABLES = """
    CREATE TABLE people (tenant integer NOT NULL, code text NOT NULL, age integer, PRIMARY KEY (tenant, code));
    CREATE TABLE effects (tenant integer, code text, age integer, run integer)
"""
"""`people` are walked; each effect leaves a row in `effects`, which has no key that could hide a second one."""

_EFFECT = text("INSERT INTO effects VALUES (:tenant, :code, :age, :run)")

most_at_once = [0]
_busy = [0]
_lock = threading.Lock()
_met = threading.Condition(_lock)
_LONGEST_WAIT_SECONDS = 20


def record(rows: list[dict[str, Any]], connection: Connection, context: JobContext) -> dict[str, int]:
    """Leave an effect for each row, in the batch's transaction."""
    connection.execute(_EFFECT, [{**row, "run": context.run_id} for row in rows])
    return {"recorded": len(rows), "age": sum(row["age"] or 0 for row in rows)}


def record_slowly(rows: list[dict[str, Any]], connection: Connection, seconds: float = 0.02) -> None:
    """Leave effects and take a while, so that there is time to disturb it; notes how many do so at once."""
    with _lock:
        _busy[0] += 1
        most_at_once[0] = max(most_at_once[0], _busy[0])
    try:
        connection.execute(_EFFECT, [{**row, "run": 0} for row in rows])
        time.sleep(seconds)
    finally:
        with _lock:
            _busy[0] -= 1


def record_together(rows: list[dict[str, Any]], connection: Connection, expected: int) -> None:
    """Leave effects, and do not end before so many have been at it at once; notes how many were, as above."""
    with _met:
        _busy[0] += 1
        most_at_once[0] = max(most_at_once[0], _busy[0])
        _met.notify_all()
        _met.wait_for(lambda: most_at_once[0] >= expected, _LONGEST_WAIT_SECONDS)
    try:
        connection.execute(_EFFECT, [{**row, "run": 0} for row in rows])
    finally:
        with _met:
            _busy[0] -= 1


def record_one(row: dict[str, Any], connection: Connection) -> None:
    """Leave an effect for one row."""
    connection.execute(_EFFECT, {**row, "run": 0})


def refuse_sevens(rows: list[dict[str, Any]], connection: Connection) -> None:
    """Leave effects, but not for people whose age ends in 7: those fail after the effects of the batch were written."""
    record_slowly(rows, connection, 0)
    for row in rows:
        if row["age"] is not None and row["age"] % 10 == 7:
            raise ValueError(f"age {row['age']} is not allowed")


def break_the_table(rows: list[dict[str, Any]], connection: Connection) -> None:
    """Run a statement that the database refuses for the people whose age ends in 7."""
    for row in rows:
        connection.execute(text("INSERT INTO strict VALUES (:age)"), {"age": row["age"]})


def give_up(rows: list[dict[str, Any]]) -> None:
    """Say in batchd's words that trying again cannot help."""
    raise JobError("the mail server knows us no more", hint="ask the provider", retryable=False)


def without_connection(rows: list[dict[str, Any]], *, seen: str = "seen") -> dict[str, int]:
    """Ask for nothing."""
    return {seen: len(rows)}


def talk_nonsense(rows: list[dict[str, Any]]) -> str:
    """Return what is no count."""
    return "done"


async def later(rows: list[dict[str, Any]]) -> None:
    """Be asynchronous."""


NOT_A_FUNCTION = 5
