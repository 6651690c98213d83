"""Dead letters: runs that failed for good, to be queued again or put away, some or all of them."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from urllib.parse import urlencode

from starlette.responses import Response

from batchd.domain.run import CreatedBy, RunState
from batchd.errors import BatchdError
from batchd.store import bulk, queries
from batchd.store.bulk import Selection
from batchd.store.run_lists import ListFilter, count_runs, run_page
from batchd.web.call import Call, Endpoint
from batchd.web.endpoints.page_runs import filter_of, links
from batchd.web.pages.rendering import Notice, done, page, refused
from batchd.web.principal import Access

DEAD = frozenset({RunState.FAILED, RunState.QUARANTINED})
_MOST_NAMES = 500
_MOST_SELECTED = 500
_ID = re.compile(r"[0-9]{1,18}")


async def show_dead_letter(call: Call) -> Response:
    """Show a page of the runs that failed for good."""
    return await _dead_letter_page(call)


async def act(call: Call) -> Response:
    """Retry or discard the selected runs, or all that match."""
    fields: dict[str, list[str]] = defaultdict(list)
    for name, value in await call.fields(2 * _MOST_SELECTED):
        fields[name].append(value)
    action = fields.get("action", [""])[-1]
    job, queue = (fields.get(name, [""])[-1] or None for name in ("job", "queue"))
    states = frozenset(state for state in DEAD if state.value in fields.get("state", [])) or DEAD
    chosen = [int(text) for text in fields.get("run", [])[:_MOST_SELECTED] if _ID.fullmatch(text)]
    selections = (
        [Selection(states, job=job, queue=queue)]
        if fields.get("all") == ["yes"]
        else [Selection(DEAD, run_id=run_id) for run_id in chosen]
    )
    back = f"/dead-letter?{urlencode({name: value for name, value in (('job', job), ('queue', queue)) if value})}"
    if not selections or action not in {"retry", "discard"}:
        return done(call, back, "nothing")
    change = partial(bulk.retry_all, created_by=CreatedBy.API) if action == "retry" else bulk.discard_all
    number, problems = 0, []
    for selection in selections:
        try:
            number += (await call.store(change, selection, by=call.actor)).changed
        except BatchdError as error:
            problems.append(refused(error)[1])
    if problems:
        return await _dead_letter_page(call, problems[:1])
    return done(call, back, "retried" if action == "retry" else "discarded", number)


async def _dead_letter_page(call: Call, notices: list[Notice] | None = None) -> Response:
    asked, kept = filter_of(call.request.query_params, call.desk.jobs.timezone, call.desk.clock.now())
    wanted = ListFilter(asked.job, (asked.states & DEAD) or DEAD, asked.queue, before_id=asked.before_id)
    found = await call.store(run_page, wanted)
    known = await call.store(queries.job_names)
    return await page(
        call,
        "dead_letter.html",
        "/dead-letter",
        notices=notices or [],
        wanted=wanted,
        page=found,
        count=await call.store(count_runs, ListFilter(wanted.job, wanted.states, wanted.queue)),
        job_names=known[:_MOST_NAMES],
        is_filtered=bool(kept),
        **links(kept, wanted, found.next_before),
    )


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    return [
        Endpoint("GET", "/dead-letter", show_dead_letter, Access.VIEWER, "Dead letters", page=True),
        Endpoint("POST", "/dead-letter", act, Access.OPERATOR, "Retry or discard dead letters", page=True),
    ]
