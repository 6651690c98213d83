"""The source that the params describe, asked for what the last run left."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from batchd.clock import SystemClock
from batchd.domain.job import JsonObject
from batchd.jobs.contract import JobContext
from batchd.jobs.sync.file_source import FileSource
from batchd.jobs.sync.mapping import FieldMap
from batchd.jobs.sync.paging import paths_in_body
from batchd.jobs.sync.params import SyncParams
from batchd.jobs.sync.rate import RateLimit
from batchd.jobs.sync.record_path import parse_path
from batchd.jobs.sync.sources import Source
from batchd.jobs.sync.sql_source import SqlSource

if TYPE_CHECKING:
    from batchd.jobs.sync.record_reader import RecordReader

_CONDITIONS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
_SHORTEST_SECRET = 6


def open_source(
    params: SyncParams,
    context: JobContext,
    fields: FieldMap,
    moment_at: tuple[str, ...] | None,
    *,
    since: str | None,
    validators: JsonObject,
) -> Source:
    """Return the source; raises JobError. `since` asks for what has changed, None for everything.

    `moment_at` is the path of a record's moment of change, if somebody wants to know it.
    """
    asked = {} if params.updated_since is None or since is None else {params.updated_since.param: since}
    if params.file is not None:
        is_csv = params.source_format == "csv"
        return FileSource(params.file, None if is_csv else _reader(params, fields, moment_at), is_csv=is_csv)
    if params.sql is not None:
        assert params.source_database is not None
        binds: dict[str, str | None] = dict(asked)
        if params.updated_since is not None:
            binds.setdefault(params.updated_since.param, None)
        return SqlSource(context, context.database(params.source_database), params.sql, binds)
    return _http_source(params, context, asked, validators, _reader(params, fields, moment_at))


def _reader(params: SyncParams, fields: FieldMap, moment_at: tuple[str, ...] | None) -> RecordReader | None:
    """Return what reads ordinary records fast, or None for paths that it does not follow."""
    # A daemon that syncs nothing need not hold it in memory.
    from batchd.jobs.sync.record_reader import RecordReader  # noqa: PLC0415 (see above)

    records_at = () if params.records is None else parse_path(params.records)
    if any(path[: len(records_at)] == records_at for path in paths_in_body(params.paging)):
        return None
    try:
        return RecordReader(fields, records_at, moment_at)
    except ValueError:
        return None


def _http_source(
    params: SyncParams,
    context: JobContext,
    asked: dict[str, str],
    validators: JsonObject,
    reader: RecordReader | None,
) -> Source:
    # A daemon that asks no API need not hold an HTTP client in memory.
    from batchd.jobs.sync.http_client import HttpClient, HttpSettings  # noqa: PLC0415 (see above)
    from batchd.jobs.sync.http_source import HttpRequest, HttpSource  # noqa: PLC0415 (see above)

    assert params.url is not None
    clock = SystemClock()
    query = {name: _text(value) for name, value in params.query.items()}
    settings = HttpSettings(
        url=params.url,
        headers=_headers(params),
        allow_hosts=params.allow_hosts,
        request_timeout=params.request_timeout,
        tries=params.tries,
        max_wait=params.max_wait,
        concurrency=params.concurrency,
        secrets=_secrets(params),
    )
    request = HttpRequest(
        url=params.url,
        query={**query, **asked},
        paging=params.paging,
        records=params.records,
        is_ndjson=params.source_format == "ndjson",
        largest=params.max_page,
        concurrency=params.concurrency,
        allow_hosts=tuple(params.allow_hosts),
        conditions={header: str(validators[name]) for name, header in _CONDITIONS.items() if name in validators},
        reader=reader,
    )
    rate = RateLimit(clock, params.requests_per_second)
    return HttpSource(HttpClient(settings, rate, clock, context.log, context.time_left()), request, context)


def _headers(params: SyncParams) -> dict[str, str]:
    headers = dict(params.headers)
    if params.username is not None and params.password is not None:
        headers["Authorization"] = _basic_auth(params.username, params.password.get_secret_value())
    if params.token is not None:
        token = params.token.get_secret_value()
        name = params.token_header
        headers[name or "Authorization"] = token if name else f"Bearer {token}"
    return headers


def _secrets(params: SyncParams) -> frozenset[str]:
    """Return what a server might echo and nobody should see. What the config took from outside is masked anyway."""
    found = [each.get_secret_value() for each in (params.token, params.password) if each is not None]
    found += _headers(params).values()
    return frozenset(secret for secret in found if len(secret) >= _SHORTEST_SECRET)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _basic_auth(username: str, password: str) -> str:
    """Return the value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
