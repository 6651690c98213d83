"""The audit page: who changed what over HTTP."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from batchd.store import audit
from batchd.web.call import Call, Endpoint
from batchd.web.pages.rendering import page
from batchd.web.principal import Access

_PAGE = 50


async def show_audit(call: Call) -> Response:
    """Show who did what, newest first."""
    asked = call.request.query_params
    before, job = asked.get("before", ""), asked.get("job", "")[:200]
    before_id = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None  # noqa: PLR2004
    found = await call.store(audit.entries, before_id=before_id, job=job or None, limit=_PAGE + 1)
    shown, kept = found[:_PAGE], {"job": job} if job else {}
    return await page(
        call,
        "audit.html",
        "/audit",
        entries=shown,
        job=job,
        first_page=f"?{urlencode(kept)}" if before_id else None,
        next_page=f"?{urlencode({**kept, 'before': shown[-1].id})}" if len(found) > _PAGE else None,
    )


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    return [Endpoint("GET", "/audit", show_audit, Access.VIEWER, "Audit", page=True)]
