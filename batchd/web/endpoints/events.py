"""Live events: what happens, as it happens (server-sent events); see `batchd.web.live`."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from batchd.domain.jsonable import jsonable
from batchd.domain.position import Position, parse_position
from batchd.errors import BatchdError
from batchd.store.queries import RunView
from batchd.web.call import Call, Document, Endpoint
from batchd.web.exports.handing_out import as_event, link_to
from batchd.web.live.event_stream import EventStream, Story
from batchd.web.live.frames import Wanted
from batchd.web.live.run_story import SURELY_WRITTEN_AFTER, RunStory
from batchd.web.principal import Access
from batchd.web.problems import Problem, invalid, not_found

MEDIA_TYPE = "text/event-stream"
_RESUME = "Last-Event-ID"
_FULL_RETRY_AFTER = timedelta(seconds=10)
_MOST_NAMES = 50


class OfRun(BaseModel):
    """Which of a run's events."""

    model_config = ConfigDict(extra="forbid")

    event: list[str] = Field(
        [],
        max_length=_MOST_NAMES,
        description="`state`, `log`, `progress`, or a name such as `run.retrying`. All if unset.",
    )
    after: str | None = Field(
        None,
        pattern=r"^\d{1,19}-\d{1,19}$",
        description="Go on behind this place, an event's id. `Last-Event-ID` wins.",
    )


class OfAll(OfRun):
    """Which events."""

    job: list[str] = Field([], max_length=_MOST_NAMES, description="Of these jobs. All if unset.")
    queue: list[str] = Field([], max_length=_MOST_NAMES, description="Of these queues. All if unset.")


async def all_events(call: Call) -> Response:
    """Follow everything that happens."""
    asked = call.query(OfAll)
    wanted = Wanted(jobs=frozenset(asked.job), queues=frozenset(asked.queue), events=frozenset(asked.event))
    return _stream(call, wanted, _since(call, asked.after), Story())


async def run_events(call: Call) -> Response:
    """Follow one run until it is over."""
    asked = call.query(OfRun)
    live = call.desk.live
    run = await live.run(call.number("run_id"))
    if run is None:
        raise not_found(f"there is no run {call.path('run_id')}", hint="old runs are pruned")
    since = _since(call, asked.after)
    wanted = Wanted(run_id=run.id, events=frozenset(asked.event))
    if since is not None and _is_long_over(call, run) and not await live.has_news(since, run.id):
        return Response(status_code=HTTPStatus.NO_CONTENT)  # which tells a browser not to come back

    async def extras(ended: RunView) -> dict[str, Any]:
        link = await link_to(call, ended)
        return {} if link is None else {"download": as_event(link)}

    def present(seen: RunView) -> Any:
        return call.desk.mask(jsonable(seen))

    return _stream(call, wanted, since, RunStory(live, wanted, present, extras))


def _stream(call: Call, wanted: Wanted, since: Position | None, story: Story) -> Response:
    if call.request.method == "HEAD":
        return Response(headers={"content-type": MEDIA_TYPE})
    call.desk.live.start()
    if call.desk.stopping.is_set():
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", "the server stops", headers={"Retry-After": "2"})

    async def is_allowed() -> bool:
        gate = call.request.app.state.gate
        try:
            principal = await gate.principal_of(call.request, Access.VIEWER, call.address)
        except Problem:
            return False
        except BatchdError:
            return True  # the store is away, and tells nothing to anybody meanwhile
        return bool(principal.may(Access.VIEWER))

    full = Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too_many_listeners",
        f"{call.desk.live.hub.most} follow events already, and no more may",
        hint="raise [http] max_listeners",
        headers={"Retry-After": str(int(_FULL_RETRY_AFTER.total_seconds()))},
    )
    return EventStream(call.desk.live, wanted, since, story, is_allowed=is_allowed, when_full=full.response())


def _since(call: Call, after: str | None) -> Position | None:
    written = call.request.headers.get(_RESUME) or after
    if not written:
        return None
    position = parse_position(written)
    if position is None:
        raise invalid(f"{_RESUME} must be an event's id, such as 1041-98213")
    return position


def _is_long_over(call: Call, run: RunView) -> bool:
    return run.finished_at is not None and call.desk.clock.now() - run.finished_at > SURELY_WRITTEN_AFTER


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    of_all = Document("events", str, query=OfAll, problems=(422, 503), media_type=MEDIA_TYPE)
    of_run = Document("events", str, query=OfRun, problems=(204, 404, 422, 503), media_type=MEDIA_TYPE)
    path = "/api/v1/runs/{run_id}/events"
    return [
        Endpoint("GET", "/api/v1/events", all_events, Access.VIEWER, "Follow everything", stream=True, document=of_all),
        Endpoint("GET", path, run_events, Access.VIEWER, "Follow a run", stream=True, document=of_run),
    ]
