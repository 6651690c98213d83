"""Queueing what somebody outside the daemon asks for, in a transaction that may be theirs: all of it or nothing.

On PostgreSQL one call of `batchd_enqueue_many` (migration 0003) checks and queues everything, so that it works the same
through any driver and in one trip. On SQLite the same happens here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.domain.run_request import RunRequest
from batchd.errors import EnqueueRefused, JobError
from batchd.store.batches import QueuedBatch, group_in
from batchd.store.enqueue import NewRun, enqueue_each
from batchd.store.known_names import KnownNames, known_names
from batchd.store.unique_runs import Enqueued, OnConflict, Outcome

CALL = (
    "SELECT array_agg(place ORDER BY place), array_agg(run_id ORDER BY place), array_agg(outcome ORDER BY place),"
    " array_agg(complaint ORDER BY place) FROM batchd_enqueue_many(CAST({} AS jsonb), {})"
)
"""The call, with a place for the document and for who asks; PostgreSQL. One row of lists: cheap for very many runs."""

_MOST_COMPLAINTS = 20
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_STATEMENT = text(CALL.format(":wanted", ":created_by"))


def enqueue_requests(
    connection: Connection,
    store: Database,
    wanted: Sequence[RunRequest],
    *,
    created_by: CreatedBy = CreatedBy.CLIENT,
    before: int = 0,
) -> tuple[Enqueued, ...]:
    """Queue the runs in the connection's transaction and return what became of each, in their order.

    `before` says how many of the caller's list came before these, for complaints that count. Raises EnqueueRefused,
    before any of them is written, with what is wrong with the first twenty that are wrong.
    """
    if not wanted:
        return ()
    if connection.dialect.name == "postgresql":
        given = {"wanted": document_of(wanted), "created_by": created_by.value}
        return answers_of(connection.execute(_STATEMENT, given).one(), len(wanted), before=before)
    known = known_names(connection, [request.name for request in wanted])
    told = [(place, said) for place, request in enumerate(wanted, start=1) if (said := _complaint(request, known))]
    _refuse(told, is_one=len(wanted) + before == 1, before=before)
    new = [_new_run(request, known) for request in wanted]
    try:
        return enqueue_each(connection, store, new, created_by=created_by)
    except JobError as error:
        raise EnqueueRefused(error.message, hint=error.hint) from error


def enqueue_batch_of(
    connection: Connection,
    store: Database,
    wanted: Sequence[RunRequest],
    *,
    name: str | None,
    on_complete: RunRequest | None,
    on_success: RunRequest | None,
) -> QueuedBatch:
    """Queue the runs as one batch in the connection's transaction; see `store.batches.group_in`.

    Raises EnqueueRefused, before any of them is written, for what `enqueue_requests` refuses, or for a run at the end.
    """
    ends = [request for request in (on_complete, on_success) if request is not None]
    known = known_names(connection, [request.name for request in ends])
    for request in ends:
        if said := _complaint(request, known):
            _refuse([(1, f"the run at the batch's end: {said}")], is_one=True, before=0)
    enqueued = enqueue_requests(connection, store, wanted)
    return group_in(
        connection,
        store,
        [each.id for each in enqueued if each.outcome is Outcome.QUEUED],
        created_by=CreatedBy.CLIENT,
        name=name,
        on_complete=None if on_complete is None else _new_run(on_complete, known),
        on_success=None if on_success is None else _new_run(on_success, known),
    )


def document_of(wanted: Iterable[RunRequest]) -> str:
    """Return the requests as `batchd_enqueue_many` takes them."""
    return f"[{', '.join(request.document for request in wanted)}]"


def answers_of(row: Any, count: int, *, before: int = 0) -> tuple[Enqueued, ...]:
    """Return what the row of `CALL` says became of `count` requests; raises EnqueueRefused with its complaints."""
    places, ids, outcomes, complaints = row
    told = [(place, said) for place, said in zip(places, complaints, strict=True) if said is not None]
    _refuse(told, is_one=count + before == 1, before=before)
    return tuple(Enqueued(run_id, _OUTCOMES[word]) for run_id, word in zip(ids, outcomes, strict=True))


def _refuse(told: Sequence[tuple[int, str]], *, is_one: bool, before: int) -> None:
    if not told:
        return
    hint = "`batchd jobs` lists the jobs, `batchd kinds` the kinds; a daemon that starts tells the store of its own"
    if is_one:
        raise EnqueueRefused(told[0][1], hint=hint)
    said = "; ".join(f"run {before + place}: {complaint}" for place, complaint in told[:_MOST_COMPLAINTS])
    raise EnqueueRefused(f"nothing was queued: {said}", hint=hint)


def _complaint(request: RunRequest, known: KnownNames) -> str | None:
    job_kind = known.jobs.get(request.name)
    kind = job_kind or request.name
    if job_kind is None and known.kinds and kind not in known.kinds:
        return f"there is no job and no kind {request.name!r}"
    if request.queue is not None and known.queues and request.queue not in known.queues:
        return f"there is no queue {request.queue!r}"
    takes = known.kinds.get(kind)
    return takes.complaint(kind, request.params, has_job=job_kind is not None) if takes else None


def _new_run(request: RunRequest, known: KnownNames) -> NewRun:
    given: dict[str, Any] = json.loads(request.document)
    name = "job" if request.name in known.jobs else "kind"
    return NewRun(
        **{name: request.name},
        params=given["params"],
        queue=given.get("queue"),
        priority=given.get("priority"),
        available_at=datetime.fromisoformat(given["at"]) if "at" in given else None,
        delay=_span(given.get("delay")),
        max_attempts=given.get("max_attempts"),
        timeout=_span(given.get("timeout")),
        unique_key=given.get("unique_key"),
        unique_period=_span(given.get("unique_period")),
        on_conflict=OnConflict(request.on_conflict),
        tags=given.get("tags", ()),
        metadata=given.get("metadata"),
        backoff=given.get("retry"),
        mutex=given.get("mutex"),
        limit_key=given.get("limit_key"),
    )


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
