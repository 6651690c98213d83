"""Queueing runs, one or a hundred thousand, in one transaction of the caller's or of its own.

Two guards keep a run from being queued twice. `unique_key`: see `batchd.store.unique_runs`. `parent_id` and `key`:
a parent has at most one run of a key, finished or not, for as long as the ledger remembers them.

On PostgreSQL the function `batchd_enqueue_many` (migration 0003) does the same for everybody who is not the daemon; the
tests of tests/integration/test_enqueue_doors.py hold for both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.job import DEFAULT_RETRY, DEFAULT_TIMEOUT, JsonValue
from batchd.domain.queue import resolved_key
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import JobError
from batchd.store.schema import runs, schedules
from batchd.store.unique_runs import Enqueued, OnConflict, Outcome, UniqueRow, add_unique

_CHUNK = 1_000
"""Rows of one INSERT; more gain nothing."""

_LONGEST_KEY = 200


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to queue: of a `job` of the config, or of a `kind`.

    What is left None is the job's own setting, or the default for a run without a job. `params` replace the job's, one
    by one. It may be claimed at `available_at`, or after a `delay`, else at once; `key` is what it is to its parent.
    `backoff` replaces parts of the retry policy, as `RetryPolicy.as_json` names them; a bare text is how it grows.
    """

    job: str | None = None
    kind: str | None = None
    params: dict[str, JsonValue] = field(default_factory=dict)
    key: str | None = None
    queue: str | None = None
    priority: int | None = None
    available_at: datetime | None = None
    delay: timedelta | None = None
    max_attempts: int | None = None
    timeout: timedelta | None = None
    unique_key: str | None = None
    unique_period: timedelta | None = None
    on_conflict: OnConflict = OnConflict.KEEP
    tags: Sequence[str] = ()
    metadata: Mapping[str, JsonValue] | None = None
    backoff: Mapping[str, JsonValue] | str | None = None
    mutex: str | None = None
    limit_key: str | None = None


@dataclass(frozen=True, slots=True)
class _Template:
    kind: str
    queue: str
    priority: int
    params: dict[str, JsonValue]
    retry: dict[str, JsonValue]
    max_attempts: int
    timeout_seconds: float | None
    mutex: str | None = None
    limit_key: str | None = None


def enqueue(store: Database, wanted: Sequence[NewRun], *, created_by: CreatedBy) -> tuple[int, ...]:
    """Queue the runs in one transaction and return the ids of those that were not there already; see `enqueue_in`."""
    with store.writing() as connection:
        return enqueue_in(connection, store, wanted, created_by=created_by)


def enqueue_in(
    connection: Connection,
    store: Database,
    wanted: Sequence[NewRun],
    *,
    created_by: CreatedBy,
    parent_id: int | None = None,
) -> tuple[int, ...]:
    """Queue the runs in the caller's transaction and return the ids of those that were not there already.

    Raises JobError for a job that the store does not know. Runs of a job wait for no other run of it: its `overlap`
    is about its schedule.
    """
    rows = _rows(connection, store, wanted, created_by, parent_id)
    plain = [row for run, row in zip(wanted, rows, strict=True) if run.unique_key is None]
    ids: list[int] = []
    for start in range(0, len(plain), _CHUNK):
        new = store.dialect.insert_new(connection, runs, plain[start : start + _CHUNK], runs.c.id)
        ids.extend(row.id for row in new)
    unique = add_unique(connection, store.dialect, _unique_rows(wanted, rows))
    ids.extend(found.id for found in unique.values() if found.outcome is Outcome.QUEUED)
    if ids or unique:
        store.dialect.notify(connection, [Topic.RUNS])
    return tuple(sorted(ids))


def enqueue_each(
    connection: Connection, store: Database, wanted: Sequence[NewRun], *, created_by: CreatedBy
) -> tuple[Enqueued, ...]:
    """Queue the runs in the caller's transaction and return what became of each, in their order; see `enqueue_in`."""
    rows = _rows(connection, store, wanted, created_by, None)
    came_to = add_unique(connection, store.dialect, _unique_rows(wanted, rows))
    plain = [place for place, run in enumerate(wanted) if run.unique_key is None]
    for start in range(0, len(plain), _CHUNK):
        places = plain[start : start + _CHUNK]
        new = store.dialect.insert_new(connection, runs, [rows[place] for place in places], runs.c.id)
        came_to |= {place: Enqueued(row.id, Outcome.QUEUED) for place, row in zip(places, new, strict=True)}
    if came_to:
        store.dialect.notify(connection, [Topic.RUNS])
    return tuple(came_to[place] for place in range(len(wanted)))


def child_key(text: str) -> str:
    """Return the key as it is stored: as it stands, or its beginning and a hash where it is too long for an index."""
    if len(text) <= _LONGEST_KEY:
        return text
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{text[: _LONGEST_KEY - len(digest) - 1]}…{digest}"


def _rows(
    connection: Connection,
    store: Database,
    wanted: Sequence[NewRun],
    created_by: CreatedBy,
    parent_id: int | None,
) -> list[dict[str, Any]]:
    if not wanted:
        return []
    templates = _templates(connection, {run.job for run in wanted if run.job is not None})
    now = connection.execute(select(store.dialect.now())).scalar_one()
    return [_row(run, _template(run, templates), now, created_by, parent_id) for run in wanted]


def _unique_rows(wanted: Sequence[NewRun], rows: Sequence[dict[str, Any]]) -> list[UniqueRow]:
    return [
        UniqueRow(place, run.unique_key, run.unique_period, OnConflict(run.on_conflict), row)
        for place, (run, row) in enumerate(zip(wanted, rows, strict=True))
        if run.unique_key is not None
    ]


def _templates(connection: Connection, jobs: Iterable[str]) -> dict[str, _Template]:
    wanted = sorted(jobs)
    if not wanted:
        return {}
    rows = connection.execute(
        select(schedules).where(schedules.c.id.in_(wanted), schedules.c.removed_at.is_(None))
    ).all()
    found = {
        row.id: _Template(
            row.kind,
            row.queue,
            row.priority,
            row.params,
            row.retry,
            row.max_attempts,
            row.timeout_seconds,
            row.mutex,
            row.limit_key,
        )
        for row in rows
    }
    missing = [job for job in wanted if job not in found]
    if missing:
        raise JobError(
            f"there is no job {missing[0]!r} to queue runs of",
            hint="a job of the config reaches the store when the daemon starts",
            retryable=False,
        )
    return found


def _template(run: NewRun, templates: dict[str, _Template]) -> _Template:
    if run.job is not None:
        return templates[run.job]
    if run.kind is None:
        raise JobError("a run to queue names neither a job nor a kind", retryable=False)
    return _Template(
        kind=run.kind,
        queue="default",
        priority=0,
        params={},
        retry=DEFAULT_RETRY.as_json(),
        max_attempts=DEFAULT_RETRY.max_attempts,
        timeout_seconds=DEFAULT_TIMEOUT.total_seconds(),
    )


def _row(
    run: NewRun, template: _Template, now: datetime, created_by: CreatedBy, parent_id: int | None
) -> dict[str, Any]:
    params = {**template.params, **run.params}
    timeout = template.timeout_seconds if run.timeout is None else run.timeout.total_seconds()
    return {
        "schedule_id": run.job,
        "kind": template.kind,
        "queue": template.queue if run.queue is None else run.queue,
        "priority": template.priority if run.priority is None else run.priority,
        "params": params,
        "available_at": run.available_at or now + (run.delay or timedelta(0)),
        "timeout_seconds": timeout,
        "retry": {**template.retry, **_backoff(run.backoff)},
        "state": RunState.QUEUED.value,
        "max_attempts": template.max_attempts if run.max_attempts is None else run.max_attempts,
        "created_at": now,
        "created_by": created_by.value,
        "unique_key": run.unique_key,
        "mutex": template.mutex if run.mutex is None else run.mutex,
        "limit_key": resolved_key(template.limit_key, params) if run.limit_key is None else run.limit_key,
        "parent_id": parent_id,
        "child_key": None if parent_id is None or run.key is None else child_key(run.key),
        "tags": list(run.tags) or None,
        "metadata": dict(run.metadata) if run.metadata else None,
    }


def _backoff(given: Mapping[str, JsonValue] | str | None) -> dict[str, JsonValue]:
    if given is None:
        return {}
    return {"backoff": str(given)} if isinstance(given, str) else dict(given)
