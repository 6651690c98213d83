"""One request as an endpoint sees it, and one route as a module registers it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from batchd.domain.jsonable import jsonable
from batchd.store.audit import Actor
from batchd.web.desk import Desk
from batchd.web.principal import Access, Principal
from batchd.web.problems import Problem, invalid, not_found

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

NUL = "\0"
_MOST_FIELDS = 200
_MOST_DIGITS = 19
"""Of a number of 64 bits."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has passed the gate. `address` is the client's, as far as proxies are trusted."""

    request: Request
    desk: Desk
    principal: Principal
    address: str

    @property
    def actor(self) -> Actor:
        """Who asks, for the audit record."""
        return Actor(self.principal.name, self.principal.via.value, self.address)

    def path(self, name: str) -> str:
        """Return a part of the path, `{name}` in the route; a Problem 404 when it is no text that a store can hold."""
        text = str(self.request.path_params[name])
        if NUL in text:
            raise not_found(f"there is no {name.replace('_id', '')} {text[:40]!r}")
        return text

    def number(self, name: str, largest: int = 2**63 - 1) -> int:
        """Return a part of the path that is a number; a Problem 404 when it is none."""
        text = self.path(name)
        if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS or not 0 < int(text) <= largest:
            raise not_found(f"there is no {name.replace('_id', '')} {text[:40]!r}")
        return int(text)

    def query(self, model: type[M]) -> M:
        """Return the query as the model; names that it does not know and wrong values are a Problem 422."""
        given: dict[str, Any] = {}
        for name, value in self.request.query_params.multi_items():
            if NUL in value:
                raise no_text(name)
            is_list = name in model.model_fields and "list" in repr(model.model_fields[name].annotation)
            if is_list:
                given.setdefault(name, []).append(value)
            elif name in given:
                raise invalid(f"{name} is given twice")
            else:
                given[name] = value
        return _validated(model, given)

    async def body(self, model: type[M]) -> M:
        """Return the JSON body as the model; no body is an empty object."""
        content = await self.request.body()
        if not content:
            return _validated(model, {})
        media_type = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media_type", "the body must be JSON: Content-Type: application/json"
            )
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            raise Problem(HTTPStatus.BAD_REQUEST, "not_json", "the body is not JSON") from None
        return _validated(model, document)

    def aware(self, moment: datetime | None) -> datetime | None:
        """Return the moment of a query; without a time zone it is UTC. A Problem 422 when UTC has no such moment."""
        if moment is None or moment.tzinfo is None:
            return moment if moment is None else moment.replace(tzinfo=UTC)
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise invalid(f"{moment.isoformat()} is beyond the years 1 to 9999") from None

    async def form(self) -> Mapping[str, str]:
        """Return the fields of a form that was posted urlencoded; of fields with one name the last."""
        return dict(await self.fields(_MOST_FIELDS))

    async def fields(self, most: int) -> list[tuple[str, str]]:
        """Return the fields in order, those with one name too; a Problem when there are more, or it is no form."""
        try:
            pairs = parse_qsl((await self.request.body()).decode(), keep_blank_values=True, max_num_fields=most)
        except ValueError:
            raise Problem(HTTPStatus.BAD_REQUEST, "not_a_form", "the body is not a form") from None
        if any(NUL in name or NUL in value for name, value in pairs):
            raise no_text("a field")
        return pairs

    async def store(self, question: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Return what a function of `batchd.store` answers, called with the store in a thread."""
        return await self.desk.ask_store(question, *arguments, **options)

    def json(
        self, value: object, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Return the value as JSON, without the config's secrets: moments as ISO 8601, durations as seconds."""
        content = json.dumps(self.desk.mask(jsonable(value)), separators=(",", ":"))
        return Response(content, status, headers, "application/json")

    def redirect(self, to: str) -> Response:
        """Send a browser to another page of ours, with GET (`to` is a path)."""
        return RedirectResponse(to, HTTPStatus.SEE_OTHER)


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Document:
    """What the OpenAPI document says of a route beyond its path: models, by their names, and what may go wrong."""

    tag: str
    answer: type[Any] | None = None
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    success: int = 200
    problems: tuple[int, ...] = ()
    idempotent: bool = False
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route. `page`: people look at it; `stream`: its answer has no end, or waits for longer than requests may."""

    method: str
    path: str
    handler: Handler
    access: Access
    summary: str
    page: bool = False
    stream: bool = False
    document: Document | None = None
    largest_body: int | None = None


def no_text(name: str) -> Problem:
    """Return the problem of a value with NUL, which PostgreSQL stores in no text and compares with none."""
    return invalid(f"{name[:40]!r} holds the character NUL")


def _validated(model: type[M], given: object) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = [
            {"at": ".".join(map(str, fault["loc"])), "message": fault["msg"]}
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        said = "; ".join(f"{fault['at'] or 'body'}: {fault['message']}" for fault in faults[:5])
        raise invalid(said, extra={"errors": faults[:20]}) from None
