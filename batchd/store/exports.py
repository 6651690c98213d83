"""Exports that somebody asked for over HTTP, and the list of what was exported."""

from __future__ import annotations

from collections.abc import Collection

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.store import audit
from batchd.store.audit import Actor
from batchd.store.enqueue import NewRun, enqueue_in
from batchd.store.queries import RunFilter, RunView, list_runs

TAG = "export"
"""On every run that exports a source, so that they can be listed."""


def queue_export(store: Database, wanted: NewRun, source: str, by: Actor) -> int:
    """Queue the run of an export, with a row in the audit record, and return its id. One transaction."""
    with store.writing() as connection:
        (run_id,) = enqueue_in(connection, store, [wanted], created_by=CreatedBy.API)
        audit.add(connection, store, by, "export", run_id=run_id, detail={"source": source})
    return run_id


def newest_exports(store: Database, jobs: Collection[str], limit: int) -> tuple[RunView, ...]:
    """Return the newest runs of sources and of the jobs, newest first."""
    found = list(list_runs(store, RunFilter(tags=frozenset({TAG}), limit=limit)))
    for job in sorted(jobs):
        found += list_runs(store, RunFilter(job=job, limit=limit))
    return tuple(sorted(found, key=lambda run: run.id, reverse=True)[:limit])
