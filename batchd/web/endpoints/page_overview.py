"""The first page, and the one to sign in on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from zoneinfo import ZoneInfo

from starlette.responses import Response

from batchd.store import incidents, queries
from batchd.store.overview import STRIP_PART, overview
from batchd.store.queue_lists import queue_lines
from batchd.store.run_lists import Count
from batchd.web.call import Call, Endpoint
from batchd.web.charts.strip import strip
from batchd.web.pages.rendering import page, rendered
from batchd.web.pages.strip_view import StripView, past_hours
from batchd.web.pages.timeline_view import hour_marks, tracks
from batchd.web.pages.way_back import wanted_page
from batchd.web.principal import Access

_MOST_INCIDENTS = 5
_MOST_WORKERS = 6
_GOOD = ("succeeded",)
_BAD = ("failed", "quarantined")


async def show_overview(call: Call) -> Response:
    """Show what runs, what failed, what comes next, and the last 24 hours."""
    view, open_incidents, workers, queues = await asyncio.gather(
        call.store(overview),
        call.store(incidents.open_incidents, limit=_MOST_INCIDENTS),
        call.store(queries.listed_workers),
        call.store(queue_lines),
    )
    zone = call.desk.jobs.timezone
    there = ZoneInfo(zone)
    return await page(
        call,
        "overview.html",
        "/",
        view=view,
        now=view.now,
        running_count=Count(sum(each.running for each in queues)),
        queued_count=_together(count for each in queues for count in (each.ready, each.later, each.parked)),
        good_day=_together(view.last_day[state] for state in _GOOD if state in view.last_day),
        bad_day=_together(view.last_day[state] for state in _BAD if state in view.last_day),
        incidents=open_incidents,
        workers=workers[:_MOST_WORKERS],
        queues=queues,
        tracks=tracks(view.coming, view.now),
        next_hours=hour_marks(view.now, zone),
        past_hours=past_hours(view.strip_start, zone),
        strips=[StripView.of(each, strip(each.parts, view.strip_start, STRIP_PART, there)) for each in view.strips],
    )


def _together(some: Iterable[Count]) -> Count:
    counts = tuple(some)
    return Count(sum(count.number for count in counts), any(count.is_more for count in counts))


async def show_sign_in(call: Call) -> Response:
    """Show the form that takes a token; whoever is signed in goes on."""
    wanted = wanted_page(call.request.query_params.get("to", "/"))
    if call.principal.may(Access.VIEWER):
        return call.redirect(wanted)
    return rendered(call, "sign_in.html", HTTPStatus.OK, problem=None, to=wanted)


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    return [
        Endpoint("GET", "/", show_overview, Access.VIEWER, "Overview", page=True),
        Endpoint("GET", "/login", show_sign_in, Access.PUBLIC, "Sign in", page=True),
    ]
