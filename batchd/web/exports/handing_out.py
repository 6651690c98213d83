"""Gives out links, and takes them: who may have one, and whether one that somebody shows is good."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from batchd.domain.access import Role
from batchd.domain.exporting import ExportSettings
from batchd.store import audit, queries, tokens
from batchd.store.queries import RunView
from batchd.web.call import Call
from batchd.web.desk import Desk
from batchd.web.exports.files import ExportFile, NotServed, open_export
from batchd.web.exports.links import Grant, grant_of, link_key, signed
from batchd.web.exports.offers import file_of
from batchd.web.principal import Access
from batchd.web.problems import Problem, not_found


@dataclass(frozen=True, slots=True)
class DownloadLink:
    """Where a file can be had, and until when; whoever has the link needs nothing else."""

    url: str
    valid_until: datetime
    name: str
    size_bytes: int
    etag: str


def offered(desk: Desk) -> ExportSettings:
    """Return what the config offers; a Problem 404 when it offers nothing."""
    if desk.exports is None:
        raise not_found("no exports are offered", hint="the config has no [exports]")
    return desk.exports


async def link_to(call: Call, run: RunView) -> DownloadLink | None:
    """Return a link in the caller's name; None when they may have none, or there is no file to have."""
    settings = call.desk.exports
    if settings is None or call.principal.token_id is None or not call.principal.may(Access.OPERATOR):
        return None
    try:
        file = await call.desk.in_thread(_opened, settings, run)
    except NotServed:
        return None
    file.close()
    until = int(call.desk.clock.now().timestamp() + settings.link_valid_for.total_seconds())
    key = await _key(call.desk, settings)
    written = signed(key, Grant(run.id, until, call.principal.token_id, file.version))
    return DownloadLink(
        url=f"/api/v1/exports/{run.id}/file?grant={written}",
        valid_until=datetime.fromtimestamp(until, UTC),
        name=file.name,
        size_bytes=file.size,
        etag=f'"{file.version}"',
    )


async def granted_file(call: Call, run_id: int, written: str) -> ExportFile:
    """Return the open file that a link gives; raises Problem 403 for a bad link, 410 when its file is gone."""
    settings = offered(call.desk)
    grant = grant_of(await _key(call.desk, settings), written, call.desk.clock.now().timestamp())
    if grant is None or grant.run_id != run_id:
        raise _refused()
    if await call.store(tokens.role_of, grant.token_id) is not Role.OPERATOR:
        raise _refused()  # whoever it was given to may do this no more
    run = await call.store(queries.find_run, run_id)
    if run is None:
        raise Problem(HTTPStatus.GONE, "gone", "the run is gone", hint="export it again")
    try:
        file = await call.desk.in_thread(_opened, settings, run)
    except NotServed as error:
        raise Problem(HTTPStatus.GONE, "gone", str(error), hint="export it again") from error
    if file.version != grant.file_version:
        file.close()
        raise Problem(HTTPStatus.GONE, "gone", "the run has written another file since", hint="ask for a new link")
    await _note(call, grant, file)
    return file


def _opened(settings: ExportSettings, run: RunView) -> ExportFile:
    return open_export(file_of(settings, run))


async def _key(desk: Desk, settings: ExportSettings) -> bytes:
    try:
        return await desk.in_thread(link_key, Path(settings.key_file))
    except OSError as error:
        desk.failures.failed("/api/v1/exports", HTTPStatus.SERVICE_UNAVAILABLE, error, desk.clock.monotonic())
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "no_key", "links cannot be signed; the daemon's log says why"
        ) from error


async def _note(call: Call, grant: Grant, file: ExportFile) -> None:
    """Write a download into the audit record, once: not each part of it."""
    if call.request.method == "HEAD" or not call.request.headers.get("range", "bytes=0-").startswith("bytes=0-"):
        return
    by = audit.Actor(f"link of token {grant.token_id}", "link", call.address)
    await call.store(audit.note, by, "export.download", run_id=grant.run_id, detail={"file": file.name})


def _refused() -> Problem:
    return Problem(
        HTTPStatus.FORBIDDEN,
        "bad_link",
        "the link is not good, or no longer",
        hint="GET /api/v1/exports/RUN gives a new one",
    )


def as_event(link: DownloadLink) -> dict[str, Any]:
    """Return the link as the data of an event."""
    return {name: getattr(link, name) for name in DownloadLink.__slots__}
