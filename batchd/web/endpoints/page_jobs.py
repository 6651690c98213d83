"""Jobs: the list of them, one of them, and what may be done to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from starlette.responses import Response

from batchd.domain.preview import FirePreview, preview
from batchd.domain.run import EXTERNAL_KIND, CreatedBy
from batchd.domain.schedule import ScheduleError, parse_schedule
from batchd.domain.schedule_words import in_words
from batchd.errors import BatchdError
from batchd.store import control
from batchd.store.job_history import amounts_of, days_of, parts_of
from batchd.store.job_lists import JobRow, find_job, job_page
from batchd.store.overview import STRIP_PART
from batchd.store.run_lists import ListFilter, run_page
from batchd.web.call import Call, Endpoint
from batchd.web.charts.strip import strip
from batchd.web.pages.config_lines import config_lines
from batchd.web.pages.job_view import (
    RANGES,
    amount_values,
    axis_marks,
    calendar_values,
    day_edges,
    duration_values,
    edges_of,
)
from batchd.web.pages.params_form import Field, fields_of, param_values, written_params
from batchd.web.pages.rendering import Notice, done, page, refused
from batchd.web.principal import Access
from batchd.web.problems import not_found

_MOST_FIRES = 8
_MOST_RUNS = 10
_DEFAULT_RANGE = "7d"
_LONGEST_SEARCH = 100


async def show_jobs(call: Call) -> Response:
    """Show a page of the jobs, by name."""
    asked = call.request.query_params
    search, paused, after = asked.get("q", "")[:_LONGEST_SEARCH], asked.get("paused") == "1", asked.get("after", "")
    found = await call.store(job_page, search=search, paused=paused, after=after)
    kept = {**({"q": search} if search else {}), **({"paused": "1"} if paused else {})}
    there = ZoneInfo(call.desk.jobs.timezone)
    return await page(
        call,
        "jobs.html",
        "/jobs",
        now=found.now,
        search=search,
        paused=paused,
        jobs=[
            {
                "row": each.row,
                "words": _words(each.row),
                "last_run": each.last_run,
                "chart": strip(each.strip.parts, found.strip_start, STRIP_PART, there),
            }
            for each in found.jobs
        ],
        first_page=f"?{urlencode(kept)}" if after else None,
        next_page=f"?{urlencode({**kept, 'after': found.next_after})}" if found.next_after else None,
    )


async def show_job(call: Call) -> Response:
    """Show one job."""
    return await _job_page(call, {})


async def run_now(call: Call) -> Response:
    """Queue a run of the job, with the form's params; go to the run's page, or say what is wrong with them."""
    form = await call.form()
    written = written_params(form)
    job = call.path("job")
    try:
        overrides = param_values(written)
        if overrides:
            await call.desk.in_thread(call.desk.jobs.check_overrides, job, overrides)
        run_id = await call.store(control.trigger, job, overrides, created_by=CreatedBy.API, by=call.actor)
    except BatchdError as error:
        status, notice = refused(error)
        return await _job_page(call, written, notices=[notice], status=status)
    return done(call, f"/runs/{run_id}", "queued")


async def pause(call: Call) -> Response:
    """Pause the job's schedule."""
    return await _set_paused(call, control.pause, "paused")


async def resume(call: Call) -> Response:
    """Resume the job's schedule."""
    return await _set_paused(call, control.resume, "resumed")


async def _set_paused(call: Call, change: Any, said: str) -> Response:
    job = call.path("job")
    is_news = await call.store(change, job, by=call.actor)
    return done(call, f"/jobs/{quote(job)}", said if is_news else "unchanged")


async def _job_page(
    call: Call, written: Mapping[str, str], *, notices: Sequence[Notice] = (), status: HTTPStatus = HTTPStatus.OK
) -> Response:
    name = call.path("job")
    job = await call.store(find_job, name)
    if job is None:
        raise not_found(f"there is no job {name[:100]!r}")
    chosen = call.request.query_params.get("range", _DEFAULT_RANGE)
    chosen = chosen if chosen in RANGES else _DEFAULT_RANGE
    now = call.desk.clock.now()
    there = ZoneInfo(job.timezone)
    edges = edges_of(chosen, now)
    parts, days, amounts, runs = await asyncio.gather(
        call.store(parts_of, name, edges),
        call.store(days_of, name, day_edges(now, there)),
        call.store(amounts_of, name, job.kind, edges[0]),
        call.store(run_page, ListFilter(job=name), limit=_MOST_RUNS),
    )
    fires, no_fires = _next_fires(job, call)
    return await page(
        call,
        "job.html",
        "/jobs",
        notices=notices,
        status=status,
        job=job,
        words=_words(job),
        is_external=job.kind == EXTERNAL_KIND,
        range=chosen,
        ranges=[(value, named[0]) for value, named in RANGES.items()],
        axis=axis_marks(edges, chosen, there),
        page=runs,
        fires=fires,
        no_fires=no_fires,
        config=config_lines(job, call.desk.mask(job.params)),
        fields=await call.desk.in_thread(_fields, call, job, written),
        problems=bool(notices),
        **duration_values(parts, chosen, there),
        **amount_values(amounts, edges, chosen, there),
        **calendar_values(days),
    )


def _fields(call: Call, job: JobRow, written: Mapping[str, str]) -> list[Field]:
    kind = call.desk.jobs.kind(job.kind)
    return [] if kind is None else fields_of(kind, call.desk.mask(job.params), written)


def _next_fires(job: JobRow, call: Call) -> tuple[tuple[FirePreview, ...], str]:
    """Return the next fires, or why there is none."""
    if job.removed_at is not None:
        return (), "It is no longer in the config."
    if job.schedule is None:
        return (), "It has no schedule: it runs when it is triggered."
    if not job.enabled:
        return (), "It is disabled in the config."
    if job.paused_at is not None:
        return (), "It is paused."
    try:
        rule = parse_schedule(job.schedule, job.timezone)
    except ScheduleError as error:
        return (), str(error)
    return preview(rule, job.timezone, call.desk.clock.now(), _MOST_FIRES), "It never fires again."


def _words(job: JobRow) -> str:
    if job.kind == EXTERNAL_KIND:
        return "Runs elsewhere, and is reported"
    try:
        return in_words(job.schedule)
    except ValueError:
        return job.schedule or ""


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    one = "/jobs/{job}"
    return [
        Endpoint("GET", "/jobs", show_jobs, Access.VIEWER, "Jobs", page=True),
        Endpoint("GET", one, show_job, Access.VIEWER, "One job", page=True),
        Endpoint("POST", f"{one}/run", run_now, Access.OPERATOR, "Run a job now", page=True),
        Endpoint("POST", f"{one}/pause", pause, Access.OPERATOR, "Pause a job", page=True),
        Endpoint("POST", f"{one}/resume", resume, Access.OPERATOR, "Resume a job", page=True),
    ]
