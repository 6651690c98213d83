"""Exports: start one, watch it, download its file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.responses import Response

from batchd.domain.run import RunState
from batchd.errors import BatchdError
from batchd.store import exports
from batchd.store.queries import RunView
from batchd.web.call import Call, Endpoint
from batchd.web.exports.handing_out import DownloadLink, link_to, offered
from batchd.web.exports.offers import NotOffered, is_offered, run_of_source, source_of
from batchd.web.pages.rendering import Notice, done, page, refused
from batchd.web.pages.words import grouped
from batchd.web.principal import Access
from batchd.web.problems import not_found

_PAGE = 25
_JOB, _SOURCE = "job:", "source:"


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One export of the list; `name` is its job's or its source's."""

    run: RunView
    name: str
    link: DownloadLink | None
    said: str


async def show_exports(call: Call) -> Response:
    """Show the newest exports."""
    return await _exports_page(call, [])


async def start(call: Call) -> Response:
    """Start an export of the job or the source that the form names."""
    settings = offered(call.desk)
    form = await call.form()
    what = form.get("what", "")
    name = what.removeprefix(_JOB).removeprefix(_SOURCE)
    try:
        if what.startswith(_JOB) and name in settings.jobs:
            await call.store(exports.start_job_once, None, name, by=call.actor)
        elif what.startswith(_SOURCE) and name in settings.sources:
            source = settings.sources[name]
            run = run_of_source(settings, source, form.get("format") or None, [], {})
            await call.store(exports.start_source_once, None, run, name, by=call.actor)
        else:
            raise not_found(f"no export {name[:100]!r} is offered")
    except BatchdError as error:
        return await _exports_page(call, [refused(error)[1]])
    except NotOffered as error:
        return await _exports_page(call, [Notice("bad", str(error))])
    return done(call, "/exports", "queued")


async def _exports_page(call: Call, notices: list[Notice]) -> Response:
    settings = call.desk.exports
    before = call.request.query_params.get("before", "")
    before_id = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None  # noqa: PLR2004
    found: tuple[RunView, ...] = ()
    offers: list[tuple[str, str]] = []
    if settings is not None:
        found = await call.store(exports.newest_exports, tuple(settings.jobs), _PAGE + 1, before_id=before_id)
        offers = [(f"{_SOURCE}{name}", name) for name in sorted(settings.sources)]
        offers += [(f"{_JOB}{name}", name) for name in sorted(settings.jobs)]
    shown = [run for run in found[:_PAGE] if settings is not None and is_offered(settings, run)]
    return await page(
        call,
        "exports.html",
        "/exports",
        notices=notices,
        exports=await asyncio.gather(*(_row(call, run) for run in shown)),
        offers=offers,
        first_page="?" if before_id else None,
        next_page=f"?before={found[_PAGE - 1].id}" if len(found) > _PAGE else None,
    )


async def _row(call: Call, run: RunView) -> ExportRow:
    link = await link_to(call, run) if run.state == RunState.SUCCEEDED.value else None
    source = source_of(offered(call.desk), run) if run.schedule_id is None else None
    said = f"{link.name}, {grouped(link.size_bytes)} bytes" if link else ""
    if run.state == RunState.SUCCEEDED.value and link is None and call.principal.may(Access.OPERATOR):
        said = "Its file is gone; export it again."
    return ExportRow(run, run.schedule_id or (source.name if source else run.kind), link, said)


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    return [
        Endpoint("GET", "/exports", show_exports, Access.VIEWER, "Exports", page=True),
        Endpoint("POST", "/exports", start, Access.OPERATOR, "Start an export", page=True),
    ]
