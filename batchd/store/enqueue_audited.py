"""Queueing one run with a row in the audit record, in one transaction."""

from __future__ import annotations

from typing import Any

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.domain.run_request import RunRequest
from batchd.store import audit
from batchd.store.audit import Actor
from batchd.store.requests import enqueue_requests
from batchd.store.unique_runs import Enqueued


def enqueue_one(
    connection: Any, database: Database, request: RunRequest, *, created_by: CreatedBy, by: Actor
) -> Enqueued:
    """Queue a run in the caller's transaction and return what became of it."""
    (enqueued,) = enqueue_requests(connection, database, [request], created_by=created_by)
    detail = {"params": sorted(request.params), "outcome": enqueued.outcome.value}
    audit.add(connection, database, by, "enqueue", job=request.name, run_id=enqueued.id, detail=detail)
    return enqueued
