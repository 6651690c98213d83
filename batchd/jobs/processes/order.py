"""What a worker process is told to do."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from batchd.db.dialect import DatabaseSettings
from batchd.domain.job import JsonObject
from batchd.jobs.contract import Handover, JobContext
from batchd.jobs.processes.channel import Message
from batchd.store.checkpoints import CheckpointKey


@dataclass(frozen=True, slots=True)
class Facts:
    """What the run is; see `JobContext`."""

    run_id: int
    job: str
    attempt: int
    scheduled_for: datetime | None
    store_id: str
    time_left: timedelta | None


@dataclass(frozen=True, slots=True)
class Order:
    """A function to call. It holds the databases' passwords, and travels over the socket alone."""

    target: str
    arguments: JsonObject
    max_memory: int | None
    import_path: tuple[str, ...]
    facts: Facts
    handover: Handover

    def as_message(self) -> Message:
        """Return it as JSON."""
        return {"order": asdict(self)}


def order_for(target: str, arguments: JsonObject, max_memory: int | None, context: JobContext) -> Order:
    """Return the order to call the function for that run."""
    facts = Facts(
        context.run_id, context.job, context.attempt, context.scheduled_for, context.store_id, context.time_left()
    )
    return Order(target, arguments, max_memory, tuple(sys.path), facts, context.handover())


def read_order(said: dict[str, Any]) -> Order:
    """Return the order that arrived as JSON."""
    handed = said["handover"]
    handover = Handover(
        store=DatabaseSettings(**handed["store"]),
        databases={name: DatabaseSettings(**settings) for name, settings in handed["databases"].items()},
        checkpoint_key=CheckpointKey(**handed["checkpoint_key"]),
        record_key=CheckpointKey(**handed["record_key"]),
        watermark_job=handed["watermark_job"],
    )
    return Order(
        target=said["target"],
        arguments=said["arguments"],
        max_memory=said["max_memory"],
        import_path=tuple(said["import_path"]),
        facts=Facts(**said["facts"]),
        handover=handover,
    )
