"""Queues, daemons, incidents, the audit record."""

from __future__ import annotations

import dataclasses

from starlette.responses import Response

from batchd.store import audit, incidents, queries, queue_control
from batchd.store.incidents import IncidentDetail, IncidentFilter
from batchd.store.queries import QueueView, WorkerView
from batchd.web.call import Call, Document, Endpoint
from batchd.web.principal import Access
from batchd.web.problems import not_found
from batchd.web.shapes import Audit, Incidents, IncidentsAsked, PageAsked, Paused, Queue, Queues, Worker, Workers


async def list_queues(call: Call) -> Response:
    """List every queue of the config, and those that hold something."""
    found = {view.queue: view for view in await call.store(queries.listed_queues)}
    names = sorted({*found, *call.desk.jobs.queues()})
    views = [found.get(name, QueueView(name, 0, 0, 0, 0, None)) for name in names]
    return call.json(Queues(tuple(Queue(**{name: getattr(view, name) for name in Queue.__slots__}) for view in views)))


async def pause_queue(call: Call) -> Response:
    """Let no daemon take runs of the queue until it is resumed."""
    return await _set_paused(call, paused=True)


async def resume_queue(call: Call) -> Response:
    """Let the daemons take runs of the queue again."""
    return await _set_paused(call, paused=False)


async def _set_paused(call: Call, *, paused: bool) -> Response:
    name = call.path("queue")
    if name not in call.desk.jobs.queues():
        known = {view.queue for view in await call.store(queries.listed_queues)}
        if name not in known:
            raise not_found(f"there is no queue {name!r}")
    changed = await call.store(queue_control.pause if paused else queue_control.resume, name, by=call.actor)
    return call.json(Paused(name, paused, changed))


async def list_workers(call: Call) -> Response:
    """List the daemons of the store."""
    found = await call.store(queries.listed_workers)
    return call.json(Workers(tuple(_worker(view) for view in found)))


def _worker(view: WorkerView) -> Worker:
    fields = {each.name: getattr(view, each.name) for each in dataclasses.fields(view)}
    return Worker(**fields, alive=view.is_alive)


async def list_incidents(call: Call) -> Response:
    """List incidents, newest first."""
    asked = call.query(IncidentsAsked)
    wanted = IncidentFilter(asked.job, asked.rule, asked.state, asked.before, asked.limit)
    found = await call.store(incidents.list_incidents, wanted)
    return call.json(Incidents(found, found[-1].id if len(found) == asked.limit else None))


async def one_incident(call: Call) -> Response:
    """Show an incident, and what was told of it."""
    found = await call.store(incidents.find_incident, call.number("incident_id"))
    if found is None:
        raise not_found(f"there is no incident {call.path('incident_id')}")
    return call.json(found)


async def list_audit(call: Call) -> Response:
    """List who did what, newest first."""
    asked = call.query(PageAsked)
    found = await call.store(audit.entries, before_id=asked.before, job=asked.job, limit=asked.limit)
    return call.json(Audit(found, found[-1].id if len(found) == asked.limit else None))


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    queue, incident = "/api/v1/queues/{queue}", "/api/v1/incidents/{incident_id}"
    paused = Document("queues", Paused, problems=(404,))
    page = Document("incidents", Incidents, query=IncidentsAsked, problems=(422,))
    shown = Document("incidents", IncidentDetail, problems=(404,))
    done = Document("service", Audit, query=PageAsked, problems=(422,))
    viewer, operator = Access.VIEWER, Access.OPERATOR
    return [
        Endpoint("GET", "/api/v1/queues", list_queues, viewer, "List queues", document=Document("queues", Queues)),
        Endpoint("POST", f"{queue}/pause", pause_queue, operator, "Pause a queue", document=paused),
        Endpoint("POST", f"{queue}/resume", resume_queue, operator, "Resume a queue", document=paused),
        Endpoint("GET", "/api/v1/workers", list_workers, viewer, "List daemons", document=Document("service", Workers)),
        Endpoint("GET", "/api/v1/incidents", list_incidents, viewer, "List incidents", document=page),
        Endpoint("GET", incident, one_incident, viewer, "Show an incident", document=shown),
        Endpoint("GET", "/api/v1/audit", list_audit, viewer, "Who did what", document=done),
    ]
