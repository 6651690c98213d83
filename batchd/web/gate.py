"""Who is let through to an endpoint: who asks, is the role enough, and did the person mean to ask."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.requests import Request

from batchd.store import tokens
from batchd.store.tokens import Bearer
from batchd.web.call import Endpoint
from batchd.web.desk import Desk
from batchd.web.limits import Failures, Limits
from batchd.web.principal import CRON, NOBODY, Access, Principal, Via
from batchd.web.problems import Problem

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SCHEME = "bearer"
_REMEMBERED_SECONDS = 2.0
_MOST_REMEMBERED = 1_000
_NEEDED = {Access.CRON: "it needs the cron_secret of [http], or an operator's token, in the header Authorization"}


@dataclass(frozen=True, slots=True)
class _Remembered:
    principal: Principal
    until: float


class Gate:
    """Knows who asks. For the server's event loop; what it finds out it remembers for two seconds."""

    def __init__(self, desk: Desk, limits: Limits) -> None:
        self._desk = desk
        self._failures: Failures = limits.failures
        self._remembered: dict[tuple[Via, str], _Remembered] = {}

    @property
    def cookie(self) -> str:
        """Return the name of the session's cookie; `__Host-` binds it to this host and to TLS (or this machine)."""
        return "__Host-batchd" if self._desk.settings.needs_secure_cookie else "batchd_session"

    async def principal_of(self, request: Request, access: Access, address: str) -> Principal:
        """Return who asks; raises Problem 401 for a token that is wrong, 429 after too many of them."""
        header = request.headers.get("authorization")
        if header is not None:
            return await self._by_token(header, access, address)
        cookie = request.cookies.get(self.cookie)
        if cookie:
            return await self._by_session(cookie)
        return NOBODY

    def check(self, principal: Principal, endpoint: Endpoint, request: Request) -> None:
        """Raise Problem 401 or 403 unless the principal may use the endpoint, and meant to."""
        is_open = endpoint.access is Access.METRICS and self._desk.settings.metrics_open
        if not (is_open or principal.may(endpoint.access)):
            raise self._refusal(principal, endpoint.access)
        if request.method not in _SAFE and principal.via in {Via.SESSION, Via.NOTHING}:
            self._check_origin(request)

    def check_failures(self, address: str) -> None:
        """Raise Problem 429 when too many wrong tokens came from there."""
        self._failures.check(address, self._desk.clock.monotonic())

    def failed(self, address: str) -> Problem:
        """Count a wrong token, and return the answer to it."""
        self._failures.add(address, self._desk.clock.monotonic())
        return unauthorized()

    def forget(self) -> None:
        """Look everybody up again: a token was revoked, or somebody signed out."""
        self._remembered.clear()

    async def _by_token(self, header: str, access: Access, address: str) -> Principal:
        scheme, _, token = header.partition(" ")
        token = token.strip() if scheme.lower() == _SCHEME else ""
        known = self._recall(Via.TOKEN, token)
        if known is not None:
            return known
        self.check_failures(address)
        secret = self._desk.settings.cron_secret
        if access is Access.CRON and secret is not None and _is_same(token, secret):
            return CRON
        bearer: Bearer | None = await self._desk.ask_store(tokens.bearer_of, token) if token else None
        if bearer is None:
            raise self.failed(address)
        principal = Principal(bearer.name, bearer.role, Via.TOKEN, bearer.token_id)
        self._remember(token, principal)
        await self._desk.ask_store(tokens.note_used, bearer.token_id)
        return principal

    async def _by_session(self, cookie: str) -> Principal:
        known = self._recall(Via.SESSION, cookie)
        if known is not None:
            return known
        bearer = await self._desk.ask_store(tokens.bearer_of_session, cookie)
        if bearer is None:
            return NOBODY
        principal = Principal(bearer.name, bearer.role, Via.SESSION, bearer.token_id)
        self._remember(cookie, principal)
        return principal

    def _recall(self, via: Via, secret: str) -> Principal | None:
        """Return who this is. A token in a cookie is nobody: what comes with a cookie may be another site's wish."""
        found = self._remembered.get((via, secret))
        if found is None or found.until < self._desk.clock.monotonic():
            return None
        return found.principal

    def _remember(self, secret: str, principal: Principal) -> None:
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[principal.via, secret] = _Remembered(
            principal, self._desk.clock.monotonic() + _REMEMBERED_SECONDS
        )

    def _refusal(self, principal: Principal, access: Access) -> Problem:
        if not principal.is_known:
            return unauthorized()
        return Problem(
            HTTPStatus.FORBIDDEN,
            "forbidden",
            f"{principal.name} may not do this",
            hint=_NEEDED.get(access, f"it needs a token of the role {access.value}"),
        )

    def _check_origin(self, request: Request) -> None:
        """Refuse what another site's page made the browser send (CSRF); browsers tell where a request comes from."""
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        if site is not None:
            is_ours = site == "same-origin"
        else:
            # Browsers leave Sec-Fetch-* out on plain http, but for this machine.
            is_ours = origin is not None and self._is_own(origin, request.headers.get("host", ""))
        if not is_ours:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "cross_site",
                "the request does not come from a page of this site",
                hint="programs send a token: Authorization: Bearer …",
            )

    def _is_own(self, origin: str, host: str) -> bool:
        if origin == self._desk.settings.public_origin:
            return True
        return urlsplit(origin).netloc.lower() == host.lower()


def unauthorized() -> Problem:
    """Return the one answer to no token and to a wrong one."""
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "a valid token is needed",
        hint="Authorization: Bearer TOKEN; `batchd token create` makes one",
        headers={"WWW-Authenticate": 'Bearer realm="batchd"'},
    )


def _is_same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode("utf-8", "surrogatepass"))
