"""Exports: what is offered, start one, follow it, and download its file by a link that ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from pydantic import Field, JsonValue, model_validator
from starlette.responses import Response

from batchd.store import exports, queries
from batchd.store.queries import RunView
from batchd.web.call import Call, Document, Endpoint
from batchd.web.exports.download import Download
from batchd.web.exports.handing_out import DownloadLink, granted_file, link_to, offered
from batchd.web.exports.offers import KIND, NotOffered, is_offered, run_of_source, source_of
from batchd.web.once import key_of
from batchd.web.principal import Access
from batchd.web.problems import invalid, not_found
from batchd.web.shapes import Asked

_MOST_COLUMNS = 500
_LONGEST_LIST = 1_000
_Value = bool | int | float | str


class ExportAsked(Asked):
    """What to export: a job that is offered, or a source, with what of it."""

    job: str | None = Field(None, description="An offered job of kind csv_export; it takes nothing else.")
    source: str | None = Field(None, description="An offered source.")
    format: str | None = Field(None, description="One of the source's formats; its first if unset.")
    columns: list[str] = Field([], max_length=_MOST_COLUMNS, description="Some of the source's columns; all if unset.")
    match: dict[str, _Value | list[_Value] | dict[str, _Value] | None] = Field(
        {},
        max_length=50,
        description="What rows must have in the source's filters: a value, one of a list, null, or a range "
        "{from, before}.",
    )

    @model_validator(mode="after")
    def _is_one(self) -> ExportAsked:
        if (self.job is None) == (self.source is None):
            raise ValueError("name either a `job` or a `source`")
        if self.job is not None and (self.format or self.columns or self.match):
            raise ValueError("a job exports what its config says; `format`, `columns` and `match` are for a source")
        for name, match in self.match.items():
            if isinstance(match, list) and not 1 <= len(match) <= _LONGEST_LIST:
                raise ValueError(f"the list of {name} must have 1 to {_LONGEST_LIST} values")
            if isinstance(match, dict) and not (match and match.keys() <= {"from", "before"}):
                raise ValueError(f"the range of {name} has `from`, `before` or both")
        return self


class ExportsAsked(Asked):
    """Which exports to list."""

    before: int | None = Field(None, ge=1, le=2**63 - 1, description="Older than this run: `next` of a page.")
    limit: int = Field(50, ge=1, le=200, description="How many at most.")


class FileAsked(Asked):
    """The link's grant."""

    grant: str = Field(max_length=400, description="From the link; nothing else opens the file.")


@dataclass(frozen=True, slots=True)
class OfferedSource:
    """What may be asked of a source."""

    source: str
    columns: tuple[str, ...]
    filters: tuple[str, ...]
    formats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offers:
    """What may be exported."""

    jobs: tuple[str, ...]
    sources: tuple[OfferedSource, ...]


@dataclass(frozen=True, slots=True)
class Export:
    """One export. `events` is where to follow it; `download` is there once it has succeeded, for operators."""

    run_id: int
    job: str | None
    source: str | None
    state: str
    reason: str | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    rows_done: int | None
    rows_total: int | None
    url: str
    run: str
    events: str
    download: DownloadLink | None


@dataclass(frozen=True, slots=True)
class Exports:
    """One page of exports, newest first; `next` goes into `before` for the following one."""

    exports: tuple[Export, ...]
    next: int | None


async def offers(call: Call) -> Response:
    """Show what may be exported."""
    settings = call.desk.exports
    if settings is None:
        return call.json(Offers((), ()))
    found = tuple(
        OfferedSource(each.name, each.columns, tuple(sorted(each.filters)), each.formats)
        for each in settings.sources.values()
    )
    return call.json(Offers(tuple(sorted(settings.jobs)), found))


async def start(call: Call) -> Response:
    """Start an export; its events tell of its progress and, at the end, where to download it."""
    settings = offered(call.desk)
    asked = await call.body(ExportAsked)
    key = await key_of(call)
    if asked.job is not None:
        if asked.job not in settings.jobs:
            raise not_found(f"no job {asked.job!r} is offered", hint="GET /api/v1/exports/offers shows what is")
        run_id = await call.store(exports.start_job_once, key, asked.job, by=call.actor)
    else:
        source = settings.sources.get(asked.source or "")
        if source is None:
            raise not_found(f"no source {asked.source!r} is offered", hint="GET /api/v1/exports/offers shows what is")
        match: dict[str, JsonValue] = dict(asked.match)  # type: ignore[arg-type]
        try:
            wanted = run_of_source(settings, source, asked.format, asked.columns, match)
        except NotOffered as error:
            raise invalid(str(error)) from error
        run_id = await call.store(exports.start_source_once, key, wanted, source.name, by=call.actor)
    run = await _found(call, run_id)
    return call.json(await _export(call, run), HTTPStatus.ACCEPTED, {"Location": f"/api/v1/exports/{run_id}"})


async def listed(call: Call) -> Response:
    """List exports, newest first."""
    asked = call.query(ExportsAsked)
    settings = call.desk.exports
    if settings is None:
        return call.json(Exports((), None))
    found = await call.store(exports.newest_exports, tuple(settings.jobs), asked.limit, before_id=asked.before)
    shown = tuple([await _export(call, run, with_link=False) for run in found if is_offered(settings, run)])
    return call.json(Exports(shown, found[-1].id if len(found) == asked.limit else None))


async def one(call: Call) -> Response:
    """Show one export, with a fresh link when there is a file to download."""
    return call.json(await _export(call, await _found(call, call.number("run_id"))))


async def file(call: Call) -> Response:
    """Download the file; parts of it too, so that a broken download can go on."""
    grant = call.query(FileAsked).grant
    opened = await granted_file(call, call.number("run_id"), grant)
    return Download(opened, call.desk.clock)


async def _found(call: Call, run_id: int) -> RunView:
    settings = offered(call.desk)
    run = await call.store(queries.find_run, run_id)
    if run is None or run.kind != KIND or not is_offered(settings, run):
        raise not_found(f"there is no export {run_id}", hint="GET /api/v1/exports lists them")
    return run


async def _export(call: Call, run: RunView, *, with_link: bool = True) -> Export:
    source = source_of(offered(call.desk), run) if run.schedule_id is None else None
    return Export(
        run_id=run.id,
        job=run.schedule_id,
        source=None if source is None else source.name,
        state=run.state,
        reason=run.reason,
        error=run.error,
        created_at=run.created_at,
        finished_at=run.finished_at,
        rows_done=run.progress_done,
        rows_total=run.progress_total,
        url=f"/api/v1/exports/{run.id}",
        run=f"/api/v1/runs/{run.id}",
        events=f"/api/v1/runs/{run.id}/events",
        download=await link_to(call, run) if with_link and run.state == "succeeded" else None,
    )


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    tag = "exports"
    path = "/api/v1/exports"
    started = Document(tag, Export, ExportAsked, success=HTTPStatus.ACCEPTED, problems=(404, 409, 422), idempotent=True)
    served: dict[str, Any] = {"answer": bytes, "query": FileAsked, "media_type": "application/octet-stream"}
    sent = Document(tag, problems=(206, 304, 403, 404, 410, 412, 416, 422), **served)
    page = Document(tag, Exports, query=ExportsAsked, problems=(422,))
    shown = Document(tag, Export, problems=(404,))
    return [
        Endpoint(
            "GET", f"{path}/offers", offers, Access.VIEWER, "What may be exported", document=Document(tag, Offers)
        ),
        Endpoint("GET", path, listed, Access.VIEWER, "List exports", document=page),
        Endpoint("POST", path, start, Access.OPERATOR, "Start an export", document=started),
        Endpoint("GET", f"{path}/{{run_id}}", one, Access.VIEWER, "Show an export", document=shown),
        Endpoint("GET", f"{path}/{{run_id}}/file", file, Access.PUBLIC, "Download a file", stream=True, document=sent),
    ]
