"""Exports: the runs of jobs that write files, with their progress, and the files to download."""

from __future__ import annotations

from starlette.responses import Response

from batchd.web.call import Call, Endpoint
from batchd.web.pages.rendering import page
from batchd.web.principal import Access


async def show_exports(call: Call) -> Response:
    """Show the newest exports."""
    return await page(call, "exports.html", "/exports", exports=[], export_jobs=[], first_page=None, next_page=None)


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    return [Endpoint("GET", "/exports", show_exports, Access.VIEWER, "Exports", page=True)]
