"""How an API cuts its list into pages, as the config says it, and which request follows which answer.

The place of a page is small JSON, so that it fits a checkpoint. What an answer says is followed only as long as it
leads somewhere new: a place that was there before, or a page like the one before it, ends the run with an error, since
the list would never end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.sync.record_path import MISSING, found_at, parse_path


class _Paging(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    total: str | None = Field(default=None, description="Path of the number of all records in the answer's body.")

    @field_validator("total", "path", check_fields=False)
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None:
            parse_path(value)
        return value


class ByLink(_Paging):
    """The `Link` header names the next page: `<https://…>; rel="next"` (RFC 8288)."""

    by: Literal["link"]


class ByNext(_Paging):
    """The body holds the URL of the next page, absolute or relative; null, empty or nothing ends the list."""

    by: Literal["next"]
    path: str = Field(default="next", description="Path of the next page's URL in the body.")


class ByCursor(_Paging):
    """The body holds a cursor, which the next request sends; null, empty or nothing ends the list."""

    by: Literal["cursor"]
    path: str = Field(default="next_cursor", description="Path of the cursor in the body.")
    param: str = Field(default="cursor", description="Query parameter that sends it.")


class ByNumber(_Paging):
    """Pages are numbered; the first empty one ends the list, or `total_pages`."""

    by: Literal["page"]
    param: str = Field(default="page", description="Query parameter for the page's number.")
    first: int = Field(default=1, ge=0, description="Number of the first page.")
    size: int | None = Field(default=None, ge=1, description="Records of a page to ask for.")
    size_param: str = Field(default="per_page", description="Query parameter for `size`.")
    total_pages: str | None = Field(default=None, description="Path of the number of pages in the body.")

    @field_validator("total_pages")
    @classmethod
    def _is_a_path_too(cls, value: str | None) -> str | None:
        if value is not None:
            parse_path(value)
        return value


class ByOffset(_Paging):
    """Pages begin at an offset; the first empty one ends the list, or `total`."""

    by: Literal["offset"]
    param: str = Field(default="offset", description="Query parameter for the offset.")
    size: int | None = Field(default=None, ge=1, description="Records of a page to ask for.")
    size_param: str = Field(default="limit", description="Query parameter for `size`.")


Paging: TypeAlias = Annotated[ByLink | ByNext | ByCursor | ByNumber | ByOffset, Field(discriminator="by")]


@dataclass(frozen=True, slots=True)
class Answered:
    """What a page's answer says about the list: its body where that is a JSON document, and its `Link` header's next.

    `records` is how many it holds, `digest` tells equal pages apart from others.
    """

    document: Any
    link_next: str | None
    records: int
    digest: str


def can_be_concurrent(paging: Paging | None) -> bool:
    """Whether a page can be asked for before the one before it has been read."""
    return isinstance(paging, ByNumber) or (isinstance(paging, ByOffset) and paging.size is not None)


def first_place(paging: Paging | None) -> JsonObject:
    """Return the place of the first page."""
    match paging:
        case ByNumber(first=first):
            return {"page": first}
        case ByOffset():
            return {"offset": 0}
        case _:
            return {}


def place_after(paging: Paging, place: JsonObject) -> JsonObject:
    """Return the place of the next page without having read this one; only for paging that can be concurrent."""
    if isinstance(paging, ByNumber):
        return {"page": _number(place["page"]) + 1}
    assert isinstance(paging, ByOffset)
    assert paging.size is not None
    return {"offset": _number(place["offset"]) + paging.size}


def query_of(paging: Paging | None, place: JsonObject) -> dict[str, str]:
    """Return the query parameters that ask for the page."""
    query: dict[str, str] = {}
    match paging:
        case ByCursor(param=param) if "cursor" in place:
            query[param] = str(place["cursor"])
        case ByNumber(param=param):
            query[param] = str(place["page"])
        case ByOffset(param=param):
            query[param] = str(place["offset"])
    if isinstance(paging, ByNumber | ByOffset) and paging.size is not None:
        query[paging.size_param] = str(paging.size)
    return query


def next_place(paging: Paging | None, place: JsonObject, answered: Answered) -> JsonObject | None:
    """Return the place that follows, or None at the end; raises JobError for an answer that does not say it."""
    match paging:
        case None:
            return None
        case ByLink():
            return None if answered.link_next is None else {"url": answered.link_next}
        case ByNext(path=path):
            url = _text_at(answered, path)
            return None if url is None else {"url": url}
        case ByCursor(path=path):
            cursor = _text_at(answered, path)
            return None if cursor is None else {"cursor": cursor}
        case ByNumber(first=first, total_pages=total_pages):
            pages = None if total_pages is None else number_at(answered.document, total_pages)
            page = _number(place["page"]) + 1
            is_last = answered.records == 0 if pages is None else page >= first + pages
            return None if is_last else {"page": page}
        case ByOffset(size=size, total=total):
            records = None if total is None else number_at(answered.document, total)
            offset = _number(place["offset"]) + answered.records
            is_last = answered.records == 0 or (records is not None and offset >= records)
            if is_last:
                return None
            if size is not None and answered.records > size:
                raise JobError(
                    f"the server sent {answered.records} records, but {size} were asked for",
                    hint=f"is `{paging.size_param}` the name of its parameter?",
                    retryable=False,
                )
            return {"offset": offset}


def paths_in_body(paging: Paging | None) -> list[tuple[str, ...]]:
    """Return where in a body the paging looks."""
    named = [getattr(paging, name, None) for name in ("path", "total", "total_pages")]
    return [parse_path(path) for path in named if path is not None]


def number_at(document: Any, path: str) -> int | None:
    """Return the number at the path, also one in quotes; None when there is none."""
    value = found_at(document, parse_path(path))
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def link_next(header: str | None) -> str | None:
    """Return the target of `rel="next"` in a Link header (RFC 8288), or None."""
    for part in _links(header or ""):
        target, _, parameters = part.partition(">")
        for parameter in parameters.split(";"):
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "rel" and "next" in value.strip().strip('"').lower().split():
                return target.strip()
    return None


def places_seen(place: Mapping[str, Any]) -> str:
    """Return a name of the place by which it is known again."""
    return repr(sorted(place.items()))


def _links(header: str) -> list[str]:
    """Return the parts of a Link header that begin behind a `<`; a URL may hold a comma."""
    return [part for part in header.split("<")[1:] if ">" in part]


def _text_at(answered: Answered, path: str) -> str | None:
    value = found_at(answered.document, parse_path(path))
    if value is None or value is False or value in ("", [], {}) or value is MISSING:
        return None
    if isinstance(value, dict | list):
        raise JobError(f"`{path}` in the answer is not what leads to the next page, but a {type(value).__name__}")
    return str(value)


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
