"""Runs: list them, look at one and its log, queue, cancel, retry."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response

from batchd.domain.run import CreatedBy
from batchd.domain.run_request import RunRequest
from batchd.store import control, log_lines, queries
from batchd.store.enqueue_audited import enqueue_one
from batchd.store.queries import RunFilter
from batchd.web.call import Call, Document, Endpoint
from batchd.web.once import queue_once, run_url
from batchd.web.principal import Access
from batchd.web.problems import Problem, not_found
from batchd.web.shapes import Cancelled, EnqueueAsked, Log, LogAsked, Queued, Run, Runs, RunsAsked


async def list_runs(call: Call) -> Response:
    """List runs, newest first."""
    asked = call.query(RunsAsked)
    wanted = RunFilter(
        job=asked.job,
        parent=asked.parent,
        tags=frozenset(asked.tag),
        states=frozenset(state.value for state in asked.state),
        since=call.aware(asked.since),
        before_id=asked.before,
        limit=asked.limit,
    )
    found = await call.store(queries.list_runs, wanted)
    return call.json(Runs(found, found[-1].id if len(found) == asked.limit else None))


async def one_run(call: Call) -> Response:
    """Show a run with its attempts."""
    detail = await call.store(queries.run_detail, call.number("run_id"), lines=1)
    if detail is None:
        raise _no_run(call)
    return call.json(Run(detail.run, detail.attempts, dict(detail.children)))


async def log_of(call: Call) -> Response:
    """Show a part of a run's log."""
    asked = call.query(LogAsked)
    found = await call.store(log_lines.lines_after, call.number("run_id"), after_id=asked.after, limit=asked.limit)
    if found is None:
        raise _no_run(call)
    return call.json(Log(found, found[-1].id if found else asked.after))


async def enqueue(call: Call) -> Response:
    """Queue a run of a job of the config."""
    asked = await call.body(EnqueueAsked)
    request = RunRequest(**asked.model_dump(exclude_unset=True))
    if request.name not in call.desk.jobs.definitions():
        # Never of a bare kind: whoever may say what a `command` or a `sql` runs may do anything.
        raise not_found(f"there is no job {request.name!r}", hint="over HTTP only the config's jobs are queued")
    await call.desk.in_thread(call.desk.jobs.check_overrides, request.name, dict(request.params))
    outcomes: list[str] = []

    def queue(connection: object, created_by: CreatedBy) -> int:
        enqueued = enqueue_one(connection, call.desk.store, request, created_by=created_by, by=call.actor)
        outcomes.append(enqueued.outcome.value)
        return enqueued.id

    return await queue_once(call, queue, outcomes)


async def cancel(call: Call) -> Response:
    """Cancel a queued run at once, or ask the daemon to stop a running one."""
    run_id = call.number("run_id")
    outcome = await call.store(control.request_cancel, run_id, by=call.actor)
    return call.json(Cancelled(run_id, outcome.value))


async def retry(call: Call) -> Response:
    """Queue a run that ended badly again, from its last checkpoint."""
    run_id = call.number("run_id")
    await call.store(control.retry, run_id, created_by=CreatedBy.API, by=call.actor)
    headers = {"Location": run_url(run_id)}
    return call.json(Queued(run_id, "queued", run_url(run_id)), HTTPStatus.ACCEPTED, headers)


def _no_run(call: Call) -> Problem:
    return not_found(f"there is no run {call.path('run_id')}", hint="old runs are pruned")


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    tag = "runs"
    path = "/api/v1/runs/{run_id}"
    listed = Document(tag, Runs, query=RunsAsked, problems=(422,))
    queued = Document(tag, Queued, EnqueueAsked, success=HTTPStatus.ACCEPTED, problems=(404, 409, 422), idempotent=True)
    again = Document(tag, Queued, success=HTTPStatus.ACCEPTED, problems=(404, 409))
    shown = Document(tag, Run, problems=(404,))
    log = Document(tag, Log, query=LogAsked, problems=(404, 422))
    stopped = Document(tag, Cancelled, problems=(404, 409))
    return [
        Endpoint("GET", "/api/v1/runs", list_runs, Access.VIEWER, "List runs", document=listed),
        Endpoint("POST", "/api/v1/runs", enqueue, Access.OPERATOR, "Queue a run", document=queued),
        Endpoint("GET", path, one_run, Access.VIEWER, "Show a run", document=shown),
        Endpoint("GET", f"{path}/log", log_of, Access.VIEWER, "A run's log", document=log),
        Endpoint("POST", f"{path}/cancel", cancel, Access.OPERATOR, "Cancel a run", document=stopped),
        Endpoint("POST", f"{path}/retry", retry, Access.OPERATOR, "Run it again", document=again),
    ]
