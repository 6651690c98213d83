"""Runs that no daemon executed: a command did the work itself, and writes down how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.domain.run import CreatedBy, RunState
from batchd.store.schema import runs

_RETRY: JsonObject = {"backoff": "fixed", "delay_seconds": 0.0, "max_delay_seconds": 0.0, "jitter": 0.0}


@dataclass(frozen=True, slots=True)
class EndedRun:
    """How it ended: SUCCEEDED, FAILED or CANCELLED. `params` must not hold secrets."""

    state: RunState
    params: JsonObject
    started_at: datetime
    result: JsonObject | None
    error: str | None


def record(store: Database, kind: str, ended: EndedRun) -> int:
    """Add the run to the ledger and return its id. It has no job, no lease and no attempt, and nobody can retry it."""
    now = store.dialect.now()
    values = {
        "kind": kind,
        "queue": "default",
        "priority": 0,
        "params": ended.params,
        "available_at": ended.started_at,
        "retry": _RETRY,
        "state": ended.state.value,
        "attempt": 1,
        "max_attempts": 1,
        "created_at": ended.started_at,
        "started_at": ended.started_at,
        "finished_at": now,
        "result": ended.result,
        "error": ended.error,
        "created_by": CreatedBy.CLI.value,
    }
    with store.writing() as connection:
        run_id: int = connection.execute(insert(runs).values(values).returning(runs.c.id)).scalar_one()
    return run_id
