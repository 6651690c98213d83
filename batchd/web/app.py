"""The application: the layers that every request passes, and the routes of `batchd.web.endpoints`.

What monitoring asks for again and again is there at once. All other routes, and what they import, come with the first
request for one of them: a server that nobody looks at does without 3 MB and a tenth of a second.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import Receive, Scope, Send

from batchd.errors import BatchdError
from batchd.web import endpoints
from batchd.web.call import NUL, Call, Endpoint, no_text
from batchd.web.desk import Desk
from batchd.web.gate import Gate
from batchd.web.layers import Headers, HostCheck, SizeLimit, address_of
from batchd.web.limits import LONGEST_REQUEST_SECONDS, Limits
from batchd.web.principal import NOBODY, Access
from batchd.web.problems import Problem, problem_of
from batchd.web.scrapes import Scrapes

STATIC = Path(__file__).parent / "static"

_AT_ONCE = ("health", "metrics")


def all_endpoints() -> list[Endpoint]:
    """Return every route, of every module in `batchd.web.endpoints`."""
    return _endpoints(sorted(info.name for info in pkgutil.iter_modules(endpoints.__path__)))


def create_app(desk: Desk) -> Starlette:
    """Return the ASGI application on the desk."""
    limits = Limits()
    door = _Door(desk, Gate(desk, limits), limits)
    app = Starlette(
        routes=_routes(_endpoints(_AT_ONCE), door),
        middleware=[
            Middleware(Headers),
            Middleware(HostCheck, settings=lambda: desk.settings),
            Middleware(SizeLimit, settings=lambda: desk.settings),
        ],
        exception_handlers={HTTPException: _not_routed},
    )
    app.router.default = _Rest(door)
    app.state.desk = desk
    app.state.gate = door.gate
    app.state.scrapes = Scrapes()
    return app


def _endpoints(modules: Iterable[str]) -> list[Endpoint]:
    found: list[Endpoint] = []
    for module in modules:
        found += importlib.import_module(f"{endpoints.__name__}.{module}").routes()
    return found


def _routes(found: Iterable[Endpoint], door: _Door) -> list[BaseRoute]:
    by_path: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in found:
        by_path[endpoint.path].append(endpoint)
    return [
        Route(path, door.entrance({each.method: each for each in of_path}), methods=[each.method for each in of_path])
        for path, of_path in by_path.items()
    ]


class _Rest:
    """Every route there is, and 404 where there is none; made in another thread when the first is asked for."""

    def __init__(self, door: _Door) -> None:
        self._door = door
        self._lock = asyncio.Lock()
        self._router: Router | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._lock:
            if self._router is None:
                # Not in one of the desk's threads, which may all be waiting for a store that hangs.
                self._router = await asyncio.to_thread(self._all)
        await self._router(scope, receive, send)

    def _all(self) -> Router:
        from starlette.staticfiles import StaticFiles  # noqa: PLC0415 (as the module says)

        files = Mount("/static", StaticFiles(directory=STATIC, follow_symlink=False), name="static")
        return Router([*_routes(all_endpoints(), self._door), files])


class _Door:
    """What happens between the router and an endpoint."""

    def __init__(self, desk: Desk, gate: Gate, limits: Limits) -> None:
        self.gate = gate
        self._desk = desk
        self._limits = limits

    def entrance(self, by_method: dict[str, Endpoint]) -> Callable[[Request], Awaitable[Response]]:
        """Return the Starlette endpoint for the routes of one path."""

        async def enter(request: Request) -> Response:
            endpoint = by_method["GET" if request.method == "HEAD" else request.method]
            if request.method == "HEAD" and endpoint.access is Access.CRON:
                # Who asks whether it is there must not run it.
                raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(by_method)})
            answer = await guarded(request, endpoint)
            self._desk.counts.requests[endpoint.path, answer.status_code] += 1
            return answer

        async def guarded(request: Request, endpoint: Endpoint) -> Response:
            try:
                return await self._answer(request, endpoint)
            except Problem as problem:
                return self._told(request, endpoint, problem)
            except BatchdError as error:
                known = problem_of(error)
                if known.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    self._failed(endpoint, known.status, error)
                return self._told(request, endpoint, known)
            except Exception as error:  # noqa: BLE001 (whatever it is: told, and answered)
                self._failed(endpoint, HTTPStatus.INTERNAL_SERVER_ERROR, error)
                return self._told(request, endpoint, unexpected())

        return enter

    def _failed(self, endpoint: Endpoint, status: HTTPStatus, error: Exception) -> None:
        self._desk.failures.failed(endpoint.path, status, error, self._desk.clock.monotonic())

    async def _answer(self, request: Request, endpoint: Endpoint) -> Response:
        address = address_of(request, self._desk.settings.trusted_proxies)
        self._limits.check_rate(address, self._desk.settings.rate, self._desk.clock.monotonic())
        if endpoint.stream:
            return await self._served(request, endpoint, address)
        self._limits.begin()
        try:
            async with asyncio.timeout(LONGEST_REQUEST_SECONDS):
                return await self._served(request, endpoint, address)
        except TimeoutError:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "timeout", "the answer took too long", headers={"Retry-After": "5"}
            ) from None
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        finally:
            self._limits.end()

    async def _served(self, request: Request, endpoint: Endpoint, address: str) -> Response:
        try:
            principal = await self.gate.principal_of(request, endpoint.access, address)
        except (BatchdError, Problem):
            if endpoint.access is not Access.PUBLIC:
                raise
            principal = NOBODY
        self.gate.check(principal, endpoint, request)
        if endpoint.page:  # an endpoint of the API says so itself, by its model
            for name, value in request.query_params.multi_items():
                if NUL in value:
                    raise no_text(name)
        return await endpoint.handler(Call(request, self._desk, principal, address))

    def _told(self, request: Request, endpoint: Endpoint, problem: Problem) -> Response:
        if problem.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}:
            address = address_of(request, self._desk.settings.trusted_proxies)
            self._desk.denials.refused(endpoint.path, problem.code, address, self._desk.clock.monotonic())
            self._desk.counts.denied[problem.code] += 1
        if not endpoint.page:
            return problem.response()
        from batchd.web.pages.rendering import problem_page  # noqa: PLC0415 (as the module says)

        return problem_page(endpoint.path, request, problem)


async def _not_routed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    said = {HTTPStatus.NOT_FOUND: "there is no such page", HTTPStatus.METHOD_NOT_ALLOWED: "not with this method"}
    code = status.name.lower()
    return Problem(status, code, said.get(status, status.phrase), headers=dict(error.headers or {})).response()


def unexpected() -> Problem:
    """Return the answer to what should not have happened; the log has the rest."""
    said = "unexpected error; the daemon's log has it"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", said)
