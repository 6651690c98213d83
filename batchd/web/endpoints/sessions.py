"""Signing in: a browser shows a token once and gets a cookie; programs send the token each time."""

from __future__ import annotations

from starlette.responses import Response

from batchd.domain.access import Role
from batchd.store import tokens
from batchd.store.audit import Actor
from batchd.web.call import Call, Document, Endpoint
from batchd.web.pages.way_back import wanted_page
from batchd.web.principal import Access, Via
from batchd.web.shapes import Who


async def sign_in(call: Call) -> Response:
    """Begin a session with the form's `token`, and go `to` the page; a token for /metrics alone opens no page."""
    gate = call.request.app.state.gate
    form = await call.form()
    text, wanted = form.get("token", "").strip(), wanted_page(form.get("to", "/"))
    gate.check_failures(call.address)
    bearer = await call.store(tokens.bearer_of, text)
    if bearer is None or bearer.role is Role.METRICS:
        problem = gate.failed(call.address)
        problem.extra["to"] = wanted
        raise problem
    by = Actor(bearer.name, Via.SESSION.value, call.address)
    secret = await call.store(tokens.begin_session, bearer, call.desk.settings.session_length, by)
    answer = call.redirect(wanted)
    answer.set_cookie(
        gate.cookie,
        secret,
        max_age=int(call.desk.settings.session_length.total_seconds()),
        path="/",
        secure=call.desk.settings.needs_secure_cookie,
        httponly=True,
        samesite="strict",
    )
    return answer


async def sign_out(call: Call) -> Response:
    """End the session."""
    gate = call.request.app.state.gate
    cookie = call.request.cookies.get(gate.cookie)
    if cookie and call.principal.via is Via.SESSION:
        await call.store(tokens.end_session, cookie, call.actor)
        gate.forget()
    answer = call.redirect("/login")
    answer.delete_cookie(
        gate.cookie, path="/", secure=call.desk.settings.needs_secure_cookie, httponly=True, samesite="strict"
    )
    return answer


async def whoami(call: Call) -> Response:
    """Say who asks."""
    role = call.principal.role
    return call.json(Who(call.principal.name, role.value if role else None, call.principal.via.value))


def routes() -> list[Endpoint]:
    """Return the routes of this module; the page with the form is among the pages."""
    return [
        Endpoint("POST", "/login", sign_in, Access.PUBLIC, "Begin a session", page=True),
        Endpoint("POST", "/logout", sign_out, Access.VIEWER, "End the session", page=True),
        Endpoint("GET", "/api/v1/whoami", whoami, Access.VIEWER, "Who asks", document=Document("service", Who)),
    ]
