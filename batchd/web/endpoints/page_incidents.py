"""Incidents: what alerts were sent for."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from starlette.responses import Response

from batchd.store import audit, incidents
from batchd.store.incidents import IncidentFilter
from batchd.web.call import Call, Endpoint
from batchd.web.pages.rendering import done, page
from batchd.web.principal import Access

_PAGE = 50
_STATES = {"open": "open", "all": None}


async def show_incidents(call: Call) -> Response:
    """Show the open incidents, or all of them, newest first."""
    asked = call.request.query_params
    which = asked.get("which", "open") if asked.get("which") in _STATES else "open"
    before = asked.get("before", "")
    before_id = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None  # noqa: PLR2004
    found = await call.store(
        incidents.list_incidents, IncidentFilter(state=_STATES[which], before_id=before_id, limit=_PAGE + 1)
    )
    shown, more = found[:_PAGE], len(found) > _PAGE
    return await page(
        call,
        "incidents.html",
        "/incidents",
        which=which,
        incidents=shown,
        channels=await call.store(incidents.channel_views),
        first_page=f"?{urlencode({'which': which})}" if before_id else None,
        next_page=f"?{urlencode({'which': which, 'before': shown[-1].id})}" if more else None,
    )


async def acknowledge(call: Call) -> Response:
    """Send no more reminders of the incident."""
    return await _change(call, incidents.acknowledge, "acknowledged")


async def close(call: Call) -> Response:
    """Close the incident by hand."""
    return await _change(call, incidents.close, "closed")


async def _change(call: Call, what: Callable[..., bool], said: str) -> Response:
    number = call.number("incident_id")
    is_news = await call.store(what, number, by=call.principal.name)
    if is_news:
        await call.store(audit.note, call.actor, f"incident.{said}", detail={"incident": number})
    return done(call, "/incidents", said if is_news else "unchanged")


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    one = "/incidents/{incident_id}"
    return [
        Endpoint("GET", "/incidents", show_incidents, Access.VIEWER, "Incidents", page=True),
        Endpoint("POST", f"{one}/acknowledge", acknowledge, Access.OPERATOR, "Acknowledge an incident", page=True),
        Endpoint("POST", f"{one}/close", close, Access.OPERATOR, "Close an incident", page=True),
    ]
