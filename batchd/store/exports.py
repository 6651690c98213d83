"""Exports that somebody asked for over HTTP, and the list of what was exported."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, func, literal_column, select

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.store import audit
from batchd.store.audit import Actor
from batchd.store.control import trigger_in
from batchd.store.enqueue import NewRun, enqueue_in
from batchd.store.queries import RunView
from batchd.store.schema import runs
from batchd.store.views import columns_of
from batchd.store.web_requests import Key, once
from batchd.store.web_schema import IS_EXPORT

TAG = "export"
"""On every run that exports a source, for people who list runs; with the source's name as well."""


def start_source_once(store: Database, key: Key | None, wanted: NewRun, source: str, *, by: Actor) -> int:
    """Queue the run of a source's export, with a row in the audit record, and return its id.

    The same request, sent again with the same key, gets the same run.
    """

    def queue(connection: Connection) -> int:
        (run_id,) = enqueue_in(connection, store, [wanted], created_by=CreatedBy.API)
        audit.add(connection, store, by, "export", run_id=run_id, detail={"source": source})
        return run_id

    return once(store, key, queue).run_id


def start_job_once(store: Database, key: Key | None, job: str, *, by: Actor) -> int:
    """Queue a run of a job that exports, likewise."""

    def queue(connection: Connection) -> int:
        return trigger_in(connection, store, job, {}, created_by=CreatedBy.API, by=by)

    return once(store, key, queue).run_id


def newest_exports(
    store: Database, jobs: Collection[str], limit: int, *, before_id: int | None = None
) -> tuple[RunView, ...]:
    """Return the newest exports of the jobs and those without a job, newest first."""
    job = func.coalesce(runs.c.schedule_id, "")  # an expression, lest a planner takes an index of all the jobs' runs
    statement = (
        select(*columns_of(RunView, runs))
        .where(literal_column(IS_EXPORT), job.in_(["", *sorted(jobs)]))
        .order_by(runs.c.id.desc())
        .limit(limit)
    )
    if before_id is not None:
        statement = statement.where(runs.c.id < before_id)
    with store.reading() as connection:
        return tuple(RunView(**row) for row in connection.execute(statement).mappings())
