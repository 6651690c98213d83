"""Records from an HTTP API, page after page, asked for by threads of its own.

The attempt's thread only waits for answers, so that a stop ends the wait at once, however long the server is silent;
and while it writes one page, the next are already on their way. Those that have come meanwhile are written together.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from queue import Empty, Full, Queue
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.parse import urljoin

from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext
from batchd.jobs.http.origin import may_have_credentials, shown, with_query, without_query
from batchd.jobs.sync.answers import Answer, Spent
from batchd.jobs.sync.bodies import check_ndjson_is_whole, json_body, line_records, ndjson_lines
from batchd.jobs.sync.http_client import HttpClient
from batchd.jobs.sync.paging import (
    Answered,
    Paging,
    can_be_concurrent,
    first_place,
    link_next,
    next_place,
    number_at,
    place_after,
    places_seen,
    query_of,
)
from batchd.jobs.sync.read_records import joined
from batchd.jobs.sync.record_reader import RecordReader
from batchd.jobs.sync.sources import Page, SourceFacts

_LOOK_EVERY_SECONDS = 0.05
_LINES_OF_A_PAGE = 5_000
_RECORDS_TOGETHER = 5_000
_PAGES_AHEAD = 3
_COPIED_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to ask for. `query` goes with every request; it may hold secrets."""

    url: str
    query: Mapping[str, str]
    paging: Paging | None
    records: str | None
    is_ndjson: bool
    largest: int
    concurrency: int
    allow_hosts: tuple[str, ...]
    conditions: Mapping[str, str]
    reader: RecordReader | None


@dataclass(frozen=True, slots=True)
class _Fetched:
    place: JsonObject
    records: Sequence[Any]
    after: JsonObject | None
    total: int | None
    digest: str
    validators: JsonObject
    is_not_modified: bool = False
    lines: IO[bytes] | None = None


class HttpSource:
    """See `Source`."""

    def __init__(self, client: HttpClient, request: HttpRequest, context: JobContext) -> None:
        self.name = shown(request.url)
        self.facts = SourceFacts()
        self._client = client
        self._request = request
        self._context = context
        self._threads = ThreadPoolExecutor(request.concurrency, thread_name_prefix="sync")
        self._closed = threading.Event()
        self._waiting: deque[Future[_Fetched]] = deque()
        self._chain: Queue[_Fetched | BaseException] = Queue(_PAGES_AHEAD)
        self._seen: set[str] = set()
        self._last_digest = ""

    @property
    def mark(self) -> str | None:
        """Return a name of the list that is asked for; what the job's secrets are does not matter."""
        request = self._request
        told = (request.url, sorted(request.query), request.paging, request.records, request.is_ndjson)
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def pages(self, place: JsonObject | None) -> Iterator[Page]:
        """See `Source`."""
        begin = first_place(self._request.paging) if place is None else place
        is_first = place is None
        pages = self._ahead(begin) if self._is_concurrent else self._one_by_one(begin)
        together: list[_Fetched] = []
        while True:
            try:
                fetched = next(pages, None)
            except BaseException:
                if together:
                    yield self._page(together)
                raise
            if fetched is None:
                return
            if is_first:
                self.facts = SourceFacts(fetched.validators, fetched.is_not_modified)
                is_first = False
            if fetched.lines is not None:
                yield from self._lines(fetched.lines, fetched)
            elif not fetched.is_not_modified:
                together.append(fetched)
                if fetched.after is None or not self._may_wait(together):
                    yield self._page(together)
                    together = []

    def _may_wait(self, together: Sequence[_Fetched]) -> bool:
        """Whether the next page is here already, and belongs to the same transaction."""
        is_here = self._waiting[0].done() if self._waiting else not self._chain.empty()
        return is_here and sum(len(each.records) for each in together) < _RECORDS_TOGETHER

    def _page(self, together: Sequence[_Fetched]) -> Page:
        last = together[-1]
        return Page(joined([each.records for each in together]), self._kept(last.after), last.total, len(together))

    def taken(self) -> Spent:
        """See `Source`."""
        return self._client.taken()

    def close(self) -> None:
        """See `Source`."""
        self._closed.set()
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _is_concurrent(self) -> bool:
        return self._request.concurrency > 1 and can_be_concurrent(self._request.paging)

    def _one_by_one(self, place: JsonObject) -> Iterator[_Fetched]:
        """Yield each page while a thread asks for those after it, one after the other, a few ahead."""
        self._threads.submit(self._fetch_on, place)
        while True:
            fetched = self._next_in_chain()
            self._check_progress(fetched)
            yield fetched
            if fetched.after is None:
                return

    def _fetch_on(self, place: JsonObject | None) -> None:
        try:
            while place is not None:
                fetched = self._fetch(place)
                self._hand_on(fetched)
                place = fetched.after
        except BaseException as error:  # noqa: BLE001 (handed to the attempt's thread)
            self._hand_on(error)

    def _hand_on(self, found: _Fetched | BaseException) -> None:
        while not self._closed.is_set():
            with suppress(Full):
                self._chain.put(found, timeout=_LOOK_EVERY_SECONDS)
                return

    def _next_in_chain(self) -> _Fetched:
        while True:
            with suppress(Empty):
                found = self._chain.get(timeout=_LOOK_EVERY_SECONDS)
                break
            self._context.raise_if_stopping()
        if isinstance(found, BaseException):
            raise found
        return found

    def _ahead(self, place: JsonObject) -> Iterator[_Fetched]:
        """Yield pages in their order, some of the next on their way; what lies behind the end is thrown away."""
        paging = self._request.paging
        assert paging is not None
        coming = self._waiting
        while True:
            while len(coming) < self._request.concurrency:
                coming.append(self._threads.submit(self._fetch, place))
                place = place_after(paging, place)
            fetched = self._waited_for(coming.popleft())
            self._check_progress(fetched)
            if fetched.after is not None and fetched.after != place_after(paging, fetched.place):
                self._check_is_last(self._waited_for(coming[0]), fetched)
                fetched = _at_end(fetched)
            yield fetched
            if fetched.after is None:
                for future in coming:
                    future.cancel()
                return

    def _check_is_last(self, behind: _Fetched, short: _Fetched) -> None:
        """Raise JobError when a page that was shorter than asked for has others behind it."""
        if behind.records:
            raise JobError(
                f"{self.name}: a page at {short.place} has {len(short.records)} records, fewer than `size`, and is not "
                "the last",
                hint="the server sends smaller pages than asked for; set paging's `size` to what it sends",
                retryable=False,
            )

    def _waited_for(self, coming: Future[_Fetched]) -> _Fetched:
        while not wait([coming], timeout=_LOOK_EVERY_SECONDS).done:
            self._context.raise_if_stopping()
        return coming.result()

    def _fetch(self, place: JsonObject) -> _Fetched:
        request = self._request
        if "url" in place:
            url = with_query(str(place["url"]), request.query)
        else:
            url = with_query(request.url, {**request.query, **query_of(request.paging, place)})
        is_first = place == first_place(request.paging)
        return self._client.get(url, request.conditions if is_first else {}, lambda answer: self._read(place, answer))

    def _read(self, place: JsonObject, answer: Answer) -> _Fetched:
        validators: JsonObject = {
            name: answer.headers[name] for name in ("etag", "last-modified") if name in answer.headers
        }
        if answer.is_not_modified:
            return _Fetched(place, [], None, None, "", validators, is_not_modified=True)
        if self._request.is_ndjson:
            check_ndjson_is_whole(answer)
            return self._read_lines(place, answer, validators)
        body = json_body(answer, self._request.records, self._request.largest, self._request.reader)
        answered = Answered(body.document, link_next(answer.headers.get("link")), len(body.records), body.digest)
        after = self._after(place, answer, answered)
        total_path = None if self._request.paging is None else self._request.paging.total
        total = None if total_path is None else number_at(body.document, total_path)
        return _Fetched(place, body.records, after, total, body.digest, validators)

    def _read_lines(self, place: JsonObject, answer: Answer, validators: JsonObject) -> _Fetched:
        kept, digest = TemporaryFile(), hashlib.sha256()  # noqa: SIM115 (the attempt's thread reads it, later)
        while chunk := answer.body.read(_COPIED_BYTES):
            kept.write(chunk)
            digest.update(chunk)
        kept.seek(0)
        name = digest.hexdigest()
        after = self._after(place, answer, Answered(None, link_next(answer.headers.get("link")), answer.size, name))
        return _Fetched(place, [], after, None, name, validators, lines=kept)

    def _after(self, place: JsonObject, answer: Answer, answered: Answered) -> JsonObject | None:
        after = next_place(self._request.paging, place, answered)
        if after is None or "url" not in after:
            return after
        url = urljoin(answer.url, str(after["url"]))
        try:
            is_allowed = may_have_credentials(url, self._request.url, self._request.allow_hosts)
        except ValueError:
            is_allowed = False
        if not is_allowed:
            raise JobError(
                f"{self.name} names a next page somewhere else: {shown(url)}",
                hint="the job's headers and credentials do not go there; if they may, name the host in `allow_hosts`",
                retryable=False,
            )
        return {"url": url}

    def _check_progress(self, fetched: _Fetched) -> None:
        """Raise JobError for a page that was there before, or that equals the one before it."""
        name = places_seen({**fetched.place, **self._kept_url(fetched.place)})
        if name in self._seen:
            raise JobError(f"{self.name}: the pages go round in a circle; one follows that was there before")
        self._seen.add(name)
        if fetched.records and fetched.digest == self._last_digest:
            raise JobError(
                f"{self.name}: the page at {self._kept(fetched.place)} is the same as the one before it",
                hint="does the server know the query parameter that paging sends?",
                retryable=False,
            )
        self._last_digest = fetched.digest

    def _lines(self, lines: IO[bytes], fetched: _Fetched) -> Iterator[Page]:
        """Yield the records of an NDJSON body in pages.

        An attempt that resumes skips those that it has, if the body is still the same; else it takes all, and what it
        took before counts as the older version of the same records.
        """
        here = {name: value for name, value in fetched.place.items() if name not in {"skip", "body"}}
        skipped = fetched.place.get("skip") if fetched.place.get("body") == fetched.digest else 0
        done = skipped if isinstance(skipped, int) else 0
        with lines:
            coming = islice(ndjson_lines(lines, self.name), done, None)
            part = list(islice(coming, _LINES_OF_A_PAGE))
            while True:
                following = list(islice(coming, _LINES_OF_A_PAGE))
                done += len(part)
                rest = self._kept(here | {"skip": done, "body": fetched.digest})
                records = line_records(part, self._request.reader)
                yield Page(records, rest if following else self._kept(fetched.after), fetched.total)
                if not following:
                    return
                part = following

    def _kept(self, place: JsonObject | None) -> JsonObject | None:
        """Return the place as a checkpoint may hold it: without what the config adds to a URL."""
        return None if place is None else {**place, **self._kept_url(place)}

    def _kept_url(self, place: JsonObject) -> JsonObject:
        return {"url": without_query(str(place["url"]), self._request.query)} if "url" in place else {}


def _at_end(fetched: _Fetched) -> _Fetched:
    return _Fetched(fetched.place, fetched.records, None, fetched.total, fetched.digest, fetched.validators)
