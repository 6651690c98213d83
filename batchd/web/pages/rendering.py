"""A page as HTML: the frame around it, and the notice of what was just done."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from batchd import __version__
from batchd.errors import BatchdError
from batchd.store.overview import badges
from batchd.web.call import Call
from batchd.web.pages.way_back import sign_in_path
from batchd.web.pages.words import FILTERS
from batchd.web.principal import NOBODY, Access
from batchd.web.problems import Problem, problem_of

if TYPE_CHECKING:
    from jinja2 import Environment

_WEB = Path(__file__).parents[1]

_PLACES = (
    ("/", "Overview"),
    ("/jobs", "Jobs"),
    ("/runs", "Runs"),
    ("/dead-letter", "Dead letter"),
    ("/queues", "Queues"),
    ("/exports", "Exports"),
    ("/incidents", "Incidents"),
    ("/audit", "Audit"),
)

_DONE: Mapping[str, str] = {
    "paused": "It is paused: no fire is planned until it is resumed.",
    "resumed": "It is resumed.",
    "queue_paused": "The queue is paused, for every daemon; what runs goes on.",
    "queue_resumed": "The queue is open again.",
    "unchanged": "It was so already.",
    "cancelled": "The run is cancelled; it had not begun.",
    "asked": "The run is asked to stop. What it has committed stays committed.",
    "queued": "The run is queued.",
    "retried": "The run is queued again.",
    "discarded": "It is discarded: it stays in the ledger, and counts as no failure any more.",
    "acknowledged": "The incident is acknowledged: no more reminders of it.",
    "closed": "The incident is closed.",
    "nothing": "Nothing was selected.",
}
"""What a page says after a form: only these, so that no link can put words into its mouth."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence above a page's content; `css` is good, bad or warn."""

    css: str
    said: str
    hint: str | None = None


async def page(
    call: Call,
    template: str,
    place: str,
    *,
    notices: Sequence[Notice] = (),
    status: HTTPStatus = HTTPStatus.OK,
    **values: Any,
) -> Response:
    """Return the page in its frame; `place` is the entry of the navigation that it belongs to."""
    trouble = await call.store(badges)
    shown = {
        "/dead-letter": str(trouble.dead) if trouble.dead.number else "",
        "/incidents": str(trouble.open_incidents or ""),
    }
    frame = {
        "navigation": [(href, name, shown.get(href, "")) for href, name in _PLACES],
        "place": place,
        "may_change": call.principal.may(Access.OPERATOR),
        "notices": [*_told(call), *notices],
        "zone": call.desk.jobs.timezone,
        "now": call.desk.clock.now(),
    }
    return rendered(call, template, status, **{**frame, **values})


def rendered(call: Call, template: str, status: HTTPStatus = HTTPStatus.OK, **values: Any) -> Response:
    """Return a template as an answer."""
    content = _environment().get_template(template).render(principal=call.principal, **values)
    return HTMLResponse(content, status)


def problem_page(path: str, request: Request, problem: Problem) -> Response:
    """Return what a person sees instead of a page: the form to sign in on, or what is wrong and the way back."""
    if path == "/login" and problem.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}:
        wrong = problem.status is HTTPStatus.UNAUTHORIZED
        said = "This token is not valid." if wrong else "Too many tries. Wait a minute."
        return _as_page("sign_in.html", problem, {"problem": said, "to": problem.extra.get("to", "/")})
    is_program = "authorization" in request.headers
    if problem.status is HTTPStatus.UNAUTHORIZED and request.method in {"GET", "HEAD"} and not is_program:
        return _to_sign_in(request, problem)
    said = problem.detail[:1].upper() + problem.detail[1:]
    values = {"title": problem.status.phrase, "detail": f"{said}.", "hint": problem.hint}
    return _as_page("problem.html", problem, values)


def _to_sign_in(request: Request, problem: Problem) -> Response:
    """Send the browser to the form.

    To a link on somebody else's site it answers without the cookie, which is `SameSite=Strict`: whoever is signed in
    seems not to be. What it asks for from a page of ours has the cookie again.
    """
    there = sign_in_path(request.url.path, request.url.query)
    if request.headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
        return _as_page("passing_by.html", problem, {"there": there})
    return RedirectResponse(there, HTTPStatus.SEE_OTHER)


def _as_page(template: str, problem: Problem, values: Mapping[str, Any]) -> Response:
    headers = {name: value for name, value in problem.headers.items() if name.lower() != "content-type"}
    content = _environment().get_template(template).render(principal=NOBODY, **values)
    return HTMLResponse(content, problem.status, headers)


def done(call: Call, path: str, said: str, number: int | None = None) -> Response:
    """Send the browser to a page of ours that says what was done: a word of `_DONE`, or a number of runs."""
    count = "" if number is None else f"&number={number}"
    return call.redirect(f"{path}{'&' if '?' in path else '?'}said={said}{count}")


def refused(error: BatchdError | Problem) -> tuple[HTTPStatus, Notice]:
    """Return how a page says that something could not be done."""
    problem = problem_of(error) if isinstance(error, BatchdError) else error
    return problem.status, Notice("bad", problem.detail, problem.hint)


def asset(name: str) -> str:
    """Return the address of a static file; it changes with the file, so that browsers may keep it."""
    return f"/static/{name}?v={_fingerprint(name)}"


@functools.cache
def _fingerprint(name: str) -> str:
    return hashlib.sha256((_WEB / "static" / name).read_bytes()).hexdigest()[:12]


def _told(call: Call) -> list[Notice]:
    said = call.request.query_params.get("said", "")
    number = call.request.query_params.get("number", "")
    if said in {"retried", "discarded"} and number.isascii() and number.isdigit():
        word = "queued again" if said == "retried" else "discarded"
        many = int(number[:12])
        return [Notice("good", f"{many:,} {'run is' if many == 1 else 'runs are'} {word}.")]
    if said not in _DONE:
        return []
    return [Notice("warn" if said in {"unchanged", "nothing"} else "good", _DONE[said])]


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 (not before a page is asked for)

    environment = Environment(
        loader=FileSystemLoader(_WEB / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(asset=asset, version=__version__)
    return environment
