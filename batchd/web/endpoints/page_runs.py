"""Runs: the list with its filters in the URL, one of them, and what may be done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.datastructures import QueryParams
from starlette.responses import Response

from batchd.domain.run import DISCARDABLE, EXTERNAL_KIND, RETRYABLE_BY_HAND, UNFINISHED, CreatedBy, RunState
from batchd.errors import BatchdError
from batchd.store import bulk, control, queries
from batchd.store.control import Cancelled
from batchd.store.job_lists import find_job
from batchd.store.run_lists import ListFilter, count_runs, run_page, with_ids
from batchd.store.run_pages import run_page_detail
from batchd.web.call import Call, Endpoint
from batchd.web.pages.config_lines import param_lines
from batchd.web.pages.rendering import Notice, done, page, refused
from batchd.web.pages.result_view import result_view
from batchd.web.pages.run_view import attempt_lines, elsewhere, error_view, summary
from batchd.web.pages.words import grouped
from batchd.web.principal import Access
from batchd.web.problems import not_found

PERIODS = {
    "": ("any time", None),
    "1h": ("hour", timedelta(hours=1)),
    "24h": ("24 hours", timedelta(hours=24)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
}
_LONGEST = 200
_MOST_NAMES = 500


async def show_runs(call: Call) -> Response:
    """Show a page of the runs that the filters in the URL let through, newest first."""
    asked = call.request.query_params
    zone = await _zone_of_days(call, asked)
    wanted, kept = filter_of(asked, zone, call.desk.clock.now())
    wanted = await call.store(with_ids, wanted)
    found = await call.store(run_page, wanted)
    known = await call.store(queries.job_names)
    return await page(
        call,
        "runs.html",
        "/runs",
        wanted=wanted,
        page=found,
        count=await call.store(count_runs, _without_place(wanted)),
        period=asked.get("period", ""),
        periods=[(value, named[0]) for value, named in PERIODS.items()],
        day=asked.get("day", ""),
        day_zone=zone,
        states=[state.value for state in RunState],
        job_names=known[:_MOST_NAMES],
        is_filtered=bool(kept),
        is_first=wanted.before_id is None,
        event_filter=f"&{urlencode({'job': wanted.job})}" if wanted.job else "",
        **links(kept, wanted, found.next_before),
    )


async def _zone_of_days(call: Call, asked: QueryParams) -> str:
    """Return the zone whose day the URL means: a job's own, in which its calendar has it, else that of the pages."""
    job = await call.store(find_job, asked["job"]) if asked.get("day") and asked.get("job") else None
    return call.desk.jobs.timezone if job is None else job.timezone


async def show_run(call: Call) -> Response:
    """Show one run."""
    return await _run_page(call)


async def cancel(call: Call) -> Response:
    """Cancel the run, or ask its daemon to stop it."""
    run_id = call.number("run_id")
    try:
        outcome = await call.store(control.request_cancel, run_id, by=call.actor)
    except BatchdError as error:
        return await _with_notice(call, error)
    return done(call, f"/runs/{run_id}", "cancelled" if outcome is Cancelled.AT_ONCE else "asked")


async def retry(call: Call) -> Response:
    """Queue the run again; it goes on from its checkpoint."""
    run_id = call.number("run_id")
    try:
        await call.store(control.retry, run_id, created_by=CreatedBy.API, by=call.actor)
    except BatchdError as error:
        return await _with_notice(call, error)
    return done(call, f"/runs/{run_id}", "retried")


async def discard(call: Call) -> Response:
    """Put the run away."""
    run_id = call.number("run_id")
    try:
        await call.store(bulk.discard_one, run_id, by=call.actor)
    except BatchdError as error:
        return await _with_notice(call, error)
    return done(call, f"/runs/{run_id}", "discarded")


def filter_of(asked: QueryParams, zone: str, now: datetime) -> tuple[ListFilter, dict[str, Any]]:
    """Return the filter that a URL names, and what of the URL is kept from page to page; nonsense is left out."""
    texts = {name: asked.get(name, "").strip()[:_LONGEST] for name in ("job", "queue", "tag", "period", "day")}
    numbers = {name: _number(asked.get(name, "")) for name in ("parent", "before")}
    states = [state for state in RunState if state.value in asked.getlist("state")]
    length = PERIODS.get(texts["period"], ("", None))[1]
    since, until = (now - length, None) if length else _day(texts["day"], zone)
    wanted = ListFilter(
        job=texts["job"] or None,
        states=frozenset(states),
        queue=texts["queue"] or None,
        parent=numbers["parent"],
        tag=texts["tag"] or None,
        since=since,
        until=until,
        before_id=numbers["before"],
    )
    kept: dict[str, Any] = {name: value for name, value in texts.items() if value}
    kept |= {"parent": wanted.parent} if wanted.parent else {}
    return wanted, kept | ({"state": [state.value for state in states]} if states else {})


def links(kept: dict[str, Any], wanted: ListFilter, next_before: int | None) -> dict[str, Any]:
    """Return the addresses of the first and the next page."""
    return {
        "first_page": f"?{urlencode(kept, doseq=True)}" if wanted.before_id is not None else None,
        "next_page": f"?{urlencode({**kept, 'before': next_before}, doseq=True)}" if next_before else None,
    }


async def _with_notice(call: Call, error: BatchdError) -> Response:
    status, notice = refused(error)
    return await _run_page(call, notices=[notice], status=status)


async def _run_page(call: Call, *, notices: Sequence[Notice] = (), status: HTTPStatus = HTTPStatus.OK) -> Response:
    run_id = call.number("run_id")
    search = call.request.query_params.get("log", "")[:_LONGEST]
    found = await call.store(run_page_detail, run_id, search=search)
    if found is None:
        raise not_found(f"there is no run {run_id}", hint="old runs are pruned")
    run, now = found.detail.run, call.desk.clock.now()
    databases = await call.desk.in_thread(call.desk.jobs.databases_of, run.kind, run.schedule_id, run.params)
    beside = await call.store(elsewhere, run, databases)
    if beside.silent:
        notices = [
            *notices,
            Notice("warn", f"{', '.join(beside.silent)} does not answer: its checkpoint is not shown."),
        ]
    state = RunState(run.state)
    job = call.desk.jobs.definitions().get(run.schedule_id or "")
    lines = len(found.lines)
    return await page(
        call,
        "run.html",
        "/runs",
        notices=notices,
        status=status,
        run=run,
        job_zone=job.timezone if job else call.desk.jobs.timezone,
        summary=summary(run, now),
        can_cancel=state in UNFINISHED and run.kind != EXTERNAL_KIND,
        can_retry=state in RETRYABLE_BY_HAND and run.kind != EXTERNAL_KIND,
        can_discard=state in DISCARDABLE and state is not RunState.QUEUED,
        error=error_view(run, found.detail.attempts),
        result=result_view(run.kind, call.desk.mask(run.result)),
        attempts=attempt_lines(found.detail.attempts, now),
        children=_children_text(found.detail.children),
        checkpoints=beside.checkpoints,
        rejects=beside.rejects,
        params=param_lines(call.desk.mask(run.params)),
        lines=found.lines,
        log_search=search,
        log_words=f"{grouped(lines)} {'line' if lines == 1 else 'lines'}",
    )


def _children_text(children: Any) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in sorted(children.items()))


def _without_place(wanted: ListFilter) -> ListFilter:
    return replace(wanted, before_id=None)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 19 else None  # noqa: PLR2004 (a bigint)


def _day(text: str, zone: str) -> tuple[datetime | None, datetime | None]:
    try:
        day = datetime.fromisoformat(text).date()
        first = datetime.combine(day, time(), ZoneInfo(zone))
        return first, datetime.combine(day + timedelta(days=1), time(), ZoneInfo(zone))
    except (ValueError, OverflowError):
        return None, None


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    one = "/runs/{run_id}"
    return [
        Endpoint("GET", "/runs", show_runs, Access.VIEWER, "Runs", page=True),
        Endpoint("GET", one, show_run, Access.VIEWER, "One run", page=True),
        Endpoint("POST", f"{one}/cancel", cancel, Access.OPERATOR, "Cancel a run", page=True),
        Endpoint("POST", f"{one}/retry", retry, Access.OPERATOR, "Retry a run", page=True),
        Endpoint("POST", f"{one}/discard", discard, Access.OPERATOR, "Discard a run", page=True),
    ]
