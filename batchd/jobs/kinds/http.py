"""http: call a URL, as often as it takes to be answered, and see that the answer is the right one."""

from __future__ import annotations

import base64
import json
import re
from datetime import timedelta
from typing import Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from batchd.domain.job import JsonObject
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.http.origin import origin_of, with_query
from batchd.jobs.params import Duration, Secret

_CLASS = re.compile(r"([1-5])xx")
_STATUSES = range(100, 600)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SHORTEST_SECRET = 6
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Status = int | str


class HttpParams(Params):
    """Whom to call, with what, and which answer is the right one."""

    url: str = Field(description="http(s) URL to call.")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        default="GET", description="The request's method."
    )
    query: dict[str, str] = Field(default_factory=dict, description="Query parameters, added to the URL's own.")
    headers: dict[str, str] = Field(default_factory=dict, description="Headers of the request.")
    body: JsonValue = Field(
        default=None, description="Body: a text as it is, a table or a list as JSON with its Content-Type."
    )
    token: Secret | None = Field(default=None, description="Sent as `Authorization: Bearer TOKEN`.")
    token_header: str | None = Field(
        default=None, description="Header that carries `token` as it is instead, such as `X-Api-Key`."
    )
    username: str | None = Field(default=None, description="User for basic authentication, with `password`.")
    password: Secret | None = Field(default=None, description="Password for basic authentication.")
    allow_hosts: list[str] = Field(
        default_factory=list,
        description="Further hosts that may get credentials, headers and body, for a redirect there.",
    )
    expect: list[Status] = Field(
        default=["2xx"], min_length=1, description='Statuses that mean success: numbers, or classes such as "2xx".'
    )
    retry_on: list[Status] = Field(
        default=[408, 425, 429, "5xx"],
        description="Statuses after which the request is sent again, as after a connection that broke or a silence. "
        "Any other that is not expected fails the run at once.",
    )
    tries: int = Field(default=3, ge=1, le=100, description="How often the request is sent before the attempt fails.")
    max_wait: Duration = Field(
        default=timedelta(minutes=5),
        description="Longest `Retry-After` that is waited for; and never longer than the run's `timeout` leaves.",
    )
    request_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="Longest silence of the server, and longest time to connect. The run's `timeout` bounds the whole.",
    )
    keep_bytes: int = Field(
        default=2_000, ge=0, le=100_000, description="Of the answer so many characters go into the run's result."
    )

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        try:
            origin_of(value)
        except ValueError:
            raise ValueError("write an absolute http:// or https:// URL") from None
        return value

    @field_validator("expect", "retry_on")
    @classmethod
    def _are_statuses(cls, value: list[Status]) -> list[Status]:
        statuses(value)
        return value

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, content in value.items():
            if not _TOKEN.fullmatch(name) or "\n" in content or "\r" in content:
                raise ValueError(f"{name!r} is no header, or its value has more than one line")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> HttpParams:
        if self.body is not None and self.method in _SAFE:
            raise ValueError(f'a {self.method} has no body; set `method = "POST"`')
        if (self.username is None) != (self.password is None):
            raise ValueError("`username` and `password` belong together")
        if self.token_header is not None and self.token is None:
            raise ValueError("`token_header` needs a `token`")
        if self.token_header is not None and not _TOKEN.fullmatch(self.token_header):
            raise ValueError(f"`token_header` {self.token_header!r} is no header")
        if self.username is not None and self.token is not None and self.token_header is None:
            raise ValueError("`token` and `username` both want the Authorization header; set one")
        return self


def run(params: HttpParams, context: JobContext) -> JsonObject:
    """Call the URL; return the answer's status, size and beginning. Raises JobError for any but an expected one."""
    # A daemon that calls nobody need not hold an HTTP client in memory.
    from batchd.jobs.http.call import Call, make_call  # noqa: PLC0415 (see above)

    body = _body(params)
    credentials = _credentials(params)
    headers = {**_usual_headers(params, context), **params.headers, **credentials}
    expected = statuses(params.expect)
    call = Call(
        method=params.method,
        url=with_query(params.url, params.query),
        headers=headers,
        body=body,
        is_confidential=bool(credentials or params.headers or body),
        allow_hosts=params.allow_hosts,
        expected=expected,
        retried=statuses(params.retry_on) - expected,
        request_timeout=params.request_timeout,
        tries=params.tries,
        max_wait=params.max_wait,
        kept_bytes=params.keep_bytes,
        secrets=_secrets(params, credentials),
    )
    answered = make_call(call, context)
    return {
        "status": answered.status,
        "url": answered.url,
        "content_type": answered.content_type,
        "size_bytes": answered.size,
        "body": answered.beginning,
        "seconds": answered.seconds,
        "tries": answered.tries,
    }


def statuses(written: list[Status]) -> frozenset[int]:
    """Return the statuses that are meant: 204, "204" and "2xx" alike; raises ValueError."""
    found: set[int] = set()
    for each in written:
        if isinstance(each, str) and (match := _CLASS.fullmatch(each.strip().lower())):
            found.update(range(int(match[1]) * 100, int(match[1]) * 100 + 100))
        elif not isinstance(each, bool) and str(each).isdecimal() and int(each) in _STATUSES:
            found.add(int(each))
        else:
            raise ValueError(f'{each!r} is no status; write 204 or "2xx"')
    return frozenset(found)


def _body(params: HttpParams) -> bytes | None:
    if params.body is None:
        return None
    return (params.body if isinstance(params.body, str) else json.dumps(params.body, ensure_ascii=False)).encode()


def _usual_headers(params: HttpParams, context: JobContext) -> dict[str, str]:
    """Return what the server may want to know: which run it is, and that a second request is the same as the first."""
    headers = {"X-Batchd-Job": _ascii(context.job), "X-Batchd-Run": str(context.run_id)}
    if params.method not in _SAFE:
        headers["Idempotency-Key"] = f"{context.store_id}-{context.run_id}"
    if params.body is not None:
        is_text = isinstance(params.body, str)
        headers["Content-Type"] = "text/plain; charset=utf-8" if is_text else "application/json"
    names = {name.lower() for name in params.headers}
    return {name: value for name, value in headers.items() if name.lower() not in names}


def _credentials(params: HttpParams) -> dict[str, str]:
    found = {}
    if params.username is not None and params.password is not None:
        pair = f"{params.username}:{params.password.get_secret_value()}".encode()
        found["Authorization"] = "Basic " + base64.b64encode(pair).decode()  # RFC 7617
    if params.token is not None:
        token = params.token.get_secret_value()
        found[params.token_header or "Authorization"] = token if params.token_header else f"Bearer {token}"
    return found


def _secrets(params: HttpParams, credentials: dict[str, str]) -> frozenset[str]:
    """Return what a server might echo and nobody should see. What the config took from outside is masked anyway."""
    found = [each.get_secret_value() for each in (params.token, params.password) if each is not None]
    found += [*credentials.values(), *params.headers.values()]
    return frozenset(secret for secret in found if len(secret) >= _SHORTEST_SECRET)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _check(params: HttpParams) -> list[tuple[str, str]]:
    twice = [each for each in params.retry_on if each in params.expect]
    return [("retry_on", f"{twice[0]} stands in `expect` too")] if twice else []


KIND = Kind(
    name="http",
    summary="Calls a URL on a schedule, with a secret, retries and a check of the answer.",
    params=HttpParams,
    run=run,
    example="""\
[jobs.refresh-prices]
kind = "http"
schedule = "every 10m"
url = "https://shop.example.com/api/cron/refresh-prices"
method = "POST"
token = "${CRON_SECRET:-change-me}"   # Authorization: Bearer …
timeout = "5m"
# body = { full = false }      # as JSON
# expect = [200, 204]
# retry_on = [429, "5xx"]
""",
    databases=lambda _params: (),
    defaults={"timeout": "10m"},
    check=_check,
)
