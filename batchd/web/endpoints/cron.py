"""/api/cron/JOB: runs a job and answers with its result, as a platform's scheduler calls a route of an application."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import timedelta
from http import HTTPStatus

from starlette.responses import Response

from batchd.domain.run import CreatedBy, RunState
from batchd.store import control, queries, web_requests
from batchd.store.queries import RunView
from batchd.web.call import Call, Document, Endpoint
from batchd.web.once import key_of, run_url
from batchd.web.principal import Access
from batchd.web.problems import Problem, not_found
from batchd.web.shapes import Queued, Ran

_LONGEST_WAIT = timedelta(minutes=5)
_FIRST_LOOK = timedelta(seconds=0.05)
_LOOK_EVERY = timedelta(seconds=1)
_MOST_WAITING = 32
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})")
_ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?:$|[,;\s])")


async def cron(call: Call) -> Response:
    """Run a job now and wait for its end: 200 with its result, or a problem; 202 when the wait is over or not wanted.

    `Prefer: respond-async` waits for nothing, `Prefer: wait=30` for thirty seconds; five minutes are the most.
    """
    name = call.path("job")
    if name not in call.desk.jobs.definitions():
        raise not_found(f"there is no job {name!r}")
    key = await key_of(call)
    queued = await call.store(
        web_requests.once,
        key,
        lambda connection: control.trigger_in(
            connection, call.desk.store, name, {}, created_by=CreatedBy.API, by=call.actor
        ),
    )
    wait = _wanted(call.request.headers.get("prefer", ""))
    counts = call.desk.counts
    if wait > timedelta(0) and counts.waiting < _MOST_WAITING:
        counts.waiting += 1
        try:
            run = await _ended(call, queued.run_id, wait)
        finally:
            counts.waiting -= 1
        if run is not None:
            return _told(call, run)
    url = run_url(queued.run_id)
    return call.json(Queued(queued.run_id, "queued", url), HTTPStatus.ACCEPTED, {"Location": url})


async def _ended(call: Call, run_id: int, wait: timedelta) -> RunView | None:
    """Return the run once it has ended; None when it has not in time, or the server stops."""
    clock = call.desk.clock
    deadline = clock.monotonic() + wait.total_seconds()
    pause = _FIRST_LOOK
    while True:
        run = await call.store(queries.find_run, run_id)
        if run is not None and run.is_final:
            return run
        left = deadline - clock.monotonic()
        if left <= 0 or call.desk.stopping.is_set() or await call.request.is_disconnected():
            return None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(call.desk.stopping.wait(), min(left, pause.total_seconds()))
        pause = min(pause * 1.5, _LOOK_EVERY)


def _told(call: Call, run: RunView) -> Response:
    took = run.duration.total_seconds() if run.duration is not None else None
    ran = Ran(run.id, run.state, run.reason, run.result, run.error, took, run_url(run.id))
    if run.state == RunState.SUCCEEDED.value:
        return call.json(ran)
    status = HTTPStatus.INTERNAL_SERVER_ERROR if run.state == RunState.FAILED.value else HTTPStatus.CONFLICT
    extra = {"run_id": run.id, "state": run.state, "reason": run.reason, "url": run_url(run.id)}
    said = call.desk.mask(run.error or f"the run is {run.state}")
    raise Problem(status, f"run_{run.state}", said, headers={"Location": run_url(run.id)}, extra=extra)


def _wanted(prefer: str) -> timedelta:
    """Return how long the client wants to wait (RFC 7240)."""
    if _ASYNC.search(prefer):
        return timedelta(0)
    told = _WAIT.search(prefer)
    return min(timedelta(seconds=int(told[1])), _LONGEST_WAIT) if told else _LONGEST_WAIT


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    document = Document("cron", Ran, problems=(202, 404, 409, 500), idempotent=True)
    path = "/api/cron/{job}"
    return [
        Endpoint("GET", path, cron, Access.CRON, "Run a job and wait for it", stream=True, document=document),
        Endpoint("POST", path, cron, Access.CRON, "Run a job and wait for it", stream=True, document=document),
    ]
