"""Queues: what waits in each of them, and pausing them."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from batchd.store import queue_control
from batchd.store.queue_lists import QueueLine, queue_lines
from batchd.web.call import Call, Endpoint
from batchd.web.pages.rendering import done, page
from batchd.web.principal import Access
from batchd.web.problems import not_found


async def show_queues(call: Call) -> Response:
    """Show every queue of the config, and those that have runs or were paused."""
    found = {each.queue: each for each in await call.store(queue_lines)}
    names = sorted({*call.desk.jobs.queues(), *found})
    return await page(
        call,
        "queues.html",
        "/queues",
        queues=[(found.get(name, QueueLine(name)), call.desk.jobs.limits(name)) for name in names],
    )


async def pause(call: Call) -> Response:
    """Pause the queue."""
    return await _set_paused(call, queue_control.pause, "queue_paused")


async def resume(call: Call) -> Response:
    """Resume the queue."""
    return await _set_paused(call, queue_control.resume, "queue_resumed")


async def _set_paused(call: Call, change: Any, said: str) -> Response:
    queue = call.path("queue")
    known = {*call.desk.jobs.queues(), *(each.queue for each in await call.store(queue_lines))}
    if queue not in known:
        raise not_found(f"there is no queue {queue[:100]!r}")
    is_news = await call.store(change, queue, by=call.actor)
    return done(call, "/queues", said if is_news else "unchanged")


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    return [
        Endpoint("GET", "/queues", show_queues, Access.VIEWER, "Queues", page=True),
        Endpoint("POST", "/queues/{queue}/pause", pause, Access.OPERATOR, "Pause a queue", page=True),
        Endpoint("POST", "/queues/{queue}/resume", resume, Access.OPERATOR, "Resume a queue", page=True),
    ]
