"""Builders of rows in a store, for tests that care about one column and not about the other thirty."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select

import batchd.store.alert_schema  # noqa: F401 (its tables are among the metadata)
from batchd.db.engine import Database
from batchd.store import web_schema
from batchd.store.schema import SCHEMA_VERSION, attempts, log_lines, metadata, runs, schedules, workers

RETRY = {"backoff": "fixed", "delay_seconds": 1.0, "max_delay_seconds": 1.0, "jitter": 0.0}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def make_tables(database: Database) -> None:
    """Make batchd's tables."""
    assert web_schema.tokens.metadata is metadata
    metadata.create_all(database.engine)


def add_schedule(database: Database, name: str = "nightly", **columns: Any) -> None:
    """Add a job."""
    row = {
        "id": name,
        "kind": "cleanup",
        "schedule": "0 3 * * *",
        "timezone": "UTC",
        "queue": "default",
        "priority": 5,
        "params": {"table": "logs"},
        "enabled": True,
        "catch_up": "once",
        "catch_up_max_runs": 10,
        "catch_up_max_age_seconds": 3600.0,
        "overlap": "skip",
        "jitter_seconds": 0.0,
        "timeout_seconds": 60.0,
        "max_attempts": 3,
        "retry": RETRY,
        "definition_hash": "x",
        "created_at": LONG_AGO,
        "updated_at": LONG_AGO,
    }
    with database.writing() as connection:
        connection.execute(insert(schedules).values(row | columns))


def add_run(database: Database, state: str = "queued", job: str | None = "nightly", **columns: Any) -> int:
    """Add a run and return its id; a finished one has `finished_at`, a running one a lease."""
    now = database.dialect.now()
    row: dict[str, Any] = {
        "schedule_id": job,
        "kind": "cleanup",
        "queue": "default",
        "priority": 5,
        "params": {},
        "available_at": now,
        "retry": RETRY,
        "state": state,
        "max_attempts": 3,
        "created_at": now,
        "created_by": "schedule",
        "finished_at": None if state in {"queued", "running"} else now,
        "lease_until": database.dialect.now_plus(30) if state == "running" else None,
    }
    with database.writing() as connection:
        return int(connection.execute(insert(runs).values(row | columns).returning(runs.c.id)).scalar_one())


def add_attempt(database: Database, run_id: int, fence: int, **columns: Any) -> None:
    """Add an attempt."""
    row = {"run_id": run_id, "fence": fence, "number": fence, "worker": "w1", "started_at": LONG_AGO}
    with database.writing() as connection:
        connection.execute(insert(attempts).values(row | columns))


def add_log_line(database: Database, run_id: int, message: str) -> None:
    """Add a log line."""
    row = {"run_id": run_id, "at": LONG_AGO, "level": "info", "event": "run.started", "message": message, "fields": {}}
    with database.writing() as connection:
        connection.execute(insert(log_lines).values(row))


def add_worker(database: Database, name: str = "w1", *, heartbeat_age: float = 0, state: str = "running") -> None:
    """Add a daemon that last said it was alive `heartbeat_age` seconds ago."""
    row = {
        "id": name,
        "host": "here",
        "pid": 1,
        "boot_id": "b",
        "pid_namespace": "n",
        "process_started": 1,
        "version": "0",
        "schema_version": SCHEMA_VERSION,
        "slots": 10,
        "state": state,
        "started_at": LONG_AGO,
        "heartbeat_at": database.dialect.now_plus(-heartbeat_age),
    }
    with database.writing() as connection:
        connection.execute(insert(workers).values(row))


def run_row(database: Database, run_id: int) -> dict[str, Any]:
    """Return every column of a run."""
    with database.reading() as connection:
        return dict(connection.execute(select(runs).where(runs.c.id == run_id)).mappings().one())
