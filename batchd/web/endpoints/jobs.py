"""Jobs: what there is, when it runs next, run it now, pause it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus

from starlette.responses import Response

from batchd.domain.job import JobDefinition
from batchd.domain.preview import fires_of
from batchd.store import control, queries
from batchd.store.queries import JobView
from batchd.web.call import Call, Document, Endpoint
from batchd.web.once import queue_once
from batchd.web.principal import Access
from batchd.web.problems import not_found
from batchd.web.shapes import Fire, Fires, FiresAsked, Jobs, Paused, Queued, TriggerAsked


async def list_jobs(call: Call) -> Response:
    """List every job, by name, with its newest run."""
    return call.json(Jobs(await call.store(queries.jobs)))


async def one_job(call: Call) -> Response:
    """Show one job."""
    return call.json(await _job(call))


async def next_fires(call: Call) -> Response:
    """Say when jobs fire next: of one job, or of all of them together."""
    asked = call.query(FiresAsked)
    name = call.request.path_params.get("job")
    definitions = call.desk.jobs.definitions()
    if name is not None and name not in definitions:
        raise not_found(f"there is no job {name!r}")
    chosen = definitions.values() if name is None else [definitions[name]]
    after = asked.after or call.desk.clock.now()
    return call.json(await call.desk.in_thread(_fires, chosen, after, asked.count))


async def trigger(call: Call) -> Response:
    """Run a job now, beside its schedule."""
    name = call.path("job")
    asked = await call.body(TriggerAsked)
    if name not in call.desk.jobs.definitions():
        raise not_found(f"there is no job {name!r}")
    await call.desk.in_thread(call.desk.jobs.check_overrides, name, asked.params)
    return await queue_once(
        call,
        lambda connection, created_by: control.trigger_in(
            connection, call.desk.store, name, asked.params, created_by=created_by, by=call.actor
        ),
    )


async def pause(call: Call) -> Response:
    """Stop a job's schedule until it is resumed."""
    return await _set_paused(call, paused=True)


async def resume(call: Call) -> Response:
    """Let a paused job's schedule go on."""
    return await _set_paused(call, paused=False)


async def _set_paused(call: Call, *, paused: bool) -> Response:
    name = call.path("job")
    changed = await call.store(control.pause if paused else control.resume, name, by=call.actor)
    return call.json(Paused(name, paused, changed))


async def _job(call: Call) -> JobView:
    found = await call.store(queries.jobs, only=call.path("job"))
    if not found:
        raise not_found(f"there is no job {call.path('job')!r}")
    return found[0]


def _fires(chosen: Iterable[JobDefinition], after: datetime, count: int) -> Fires:
    coming = [Fire(job.name, fire.utc, fire.local, fire.note) for job in chosen for fire in fires_of(job, after, count)]
    return Fires(tuple(sorted(coming, key=lambda fire: (fire.utc, fire.job))[:count]))


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    tag = "jobs"
    queued = Document(tag, Queued, TriggerAsked, success=HTTPStatus.ACCEPTED, problems=(404, 409, 422), idempotent=True)
    paused = Document(tag, Paused, problems=(404,))
    fires = Document(tag, Fires, query=FiresAsked, problems=(404, 422))
    every_fire = Document(tag, Fires, query=FiresAsked, problems=(422,))
    path = "/api/v1/jobs/{job}"
    return [
        Endpoint("GET", "/api/v1/jobs", list_jobs, Access.VIEWER, "List jobs", document=Document(tag, Jobs)),
        Endpoint("GET", path, one_job, Access.VIEWER, "Show a job", document=Document(tag, JobView, problems=(404,))),
        Endpoint("GET", f"{path}/fires", next_fires, Access.VIEWER, "Next fire times of a job", document=fires),
        Endpoint("GET", "/api/v1/fires", next_fires, Access.VIEWER, "Next fire times", document=every_fire),
        Endpoint("POST", f"{path}/trigger", trigger, Access.OPERATOR, "Run a job now", document=queued),
        Endpoint("POST", f"{path}/pause", pause, Access.OPERATOR, "Pause a job", document=paused),
        Endpoint("POST", f"{path}/resume", resume, Access.OPERATOR, "Resume a job", document=paused),
    ]
