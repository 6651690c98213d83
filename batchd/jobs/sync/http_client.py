"""One request after another to an HTTP server, each tried until it is answered whole or clearly will not be.

Redirects are followed here and not by the library: on the way to another host every configured header and credential
stays behind. A body goes to a temporary file before anybody reads it, so that half an answer is never half a page.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from tempfile import SpooledTemporaryFile
from typing import IO, TypeVar
from urllib.parse import urljoin

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from batchd import __version__
from batchd.clock import Clock
from batchd.errors import JobError
from batchd.jobs.contract import Log
from batchd.jobs.http.origin import may_have_credentials, origin_of, shown
from batchd.jobs.http.retry import AskAgain, is_asked_again, pause_before, retry_after
from batchd.jobs.http.trust import trusted
from batchd.jobs.sync.answers import Answer, Spent
from batchd.jobs.sync.rate import RateLimit
from batchd.telemetry.masking import Masker

T = TypeVar("T")

_OK = frozenset({200, 203})
_NO_CONTENT = 204
_NOT_MODIFIED = 304
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_IN_MEMORY = 4 << 20
_CHUNK = 1 << 16
_SHOWN_BYTES = 300


class Stopped(Exception):
    """The source was closed while a request was on its way."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Whom to ask and how. `secrets` are never shown; headers and credentials go to the URL's own origin only."""

    url: str
    headers: Mapping[str, str]
    allow_hosts: Sequence[str]
    request_timeout: timedelta
    tries: int
    max_wait: timedelta
    concurrency: int
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


class HttpClient:
    """Any thread may call `get`; `close` ends what others wait for, within the time of one chunk."""

    def __init__(
        self, settings: HttpSettings, rate: RateLimit, clock: Clock, log: Log, time_left: timedelta | None
    ) -> None:
        self._settings = settings
        self._rate = rate
        self._clock = clock
        self._log = log
        self._deadline = None if time_left is None else clock.monotonic() + time_left.total_seconds()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._spent = Spent()
        self._masker = Masker(settings.secrets)
        seconds = settings.request_timeout.total_seconds()
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(seconds, pool=None),
            limits=httpx2.Limits(max_connections=settings.concurrency + 1),
            follow_redirects=False,
            verify=trusted(),
        )

    def get(self, url: str, conditions: Mapping[str, str], read: Callable[[Answer], T]) -> T:
        """Return what `read` makes of the whole answer.

        Asks again after connection errors, time limits, 408, 425, 429, 5xx, and an AskAgain of `read`. Raises JobError
        when that did not help or cannot, and Stopped after `close`.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(AskAgain),
            stop=stop_after_attempt(self._settings.tries),
            wait=self._pause,
            sleep=self._sleep,
            before_sleep=lambda state: self._tell(url, state),
            reraise=True,
        )
        try:
            found: T = retrying(self._once, url, conditions, read)
        except AskAgain as error:
            raise JobError(f"GET {shown(url)} failed {self._settings.tries} times, at last: {error}") from error
        return found

    def taken(self) -> Spent:
        """Return what was spent since the last call."""
        with self._lock:
            spent, self._spent = self._spent, Spent()
        return spent

    def close(self) -> None:
        """End every wait and refuse further requests."""
        self._stopped.set()
        self._client.close()

    def _once(self, url: str, conditions: Mapping[str, str], read: Callable[[Answer], T]) -> T:
        self._sleep(self._rate.next_turn().total_seconds())
        try:
            with self._answer(url, conditions) as answer:
                return read(answer)
        except httpx2.InvalidURL as error:
            raise JobError(f"GET {shown(url)}: not a URL: {error}", retryable=False) from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            if self._stopped.is_set():
                raise Stopped from error
            said = self._masker.text(str(error)) or "no answer"
            raise AskAgain(f"{type(error).__name__}: {said}") from error

    @contextmanager
    def _answer(self, url: str, conditions: Mapping[str, str]) -> Iterator[Answer]:
        """Follow redirects to an answer, and read it whole."""
        for _ in range(_MOST_REDIRECTS + 1):
            request = httpx2.Request("GET", url, headers=self._headers_for(url, conditions))
            with self._lock:
                self._spent.requests += 1
            response = self._client.send(request, stream=True)
            try:
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    url = self._redirected(url, response.headers["location"])
                    continue
                if response.status_code != _NOT_MODIFIED or not conditions:
                    self._check(url, response)
                with SpooledTemporaryFile(_IN_MEMORY) as body:
                    size = self._copy(response, body)
                    body.seek(0)
                    yield Answer(url, response.status_code, response.headers, body, size)
                return
            finally:
                response.close()
        raise JobError(f"GET {shown(url)}: more than {_MOST_REDIRECTS} redirects", retryable=False)

    def _headers_for(self, url: str, conditions: Mapping[str, str]) -> dict[str, str]:
        plain = {"User-Agent": f"batchd/{__version__}", "Accept": "application/json, application/x-ndjson, */*;q=0.5"}
        if not may_have_credentials(url, self._settings.url, self._settings.allow_hosts):
            return plain | {"Accept-Encoding": "gzip, deflate"}
        return plain | {"Accept-Encoding": "gzip, deflate"} | dict(self._settings.headers) | dict(conditions)

    def _redirected(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        try:
            scheme = origin_of(target)[0]
        except ValueError as error:
            raise JobError(f"GET {shown(url)} redirects to what is no http(s) URL", retryable=False) from error
        if origin_of(url)[0] == "https" and scheme == "http":
            raise JobError(f"GET {shown(url)} redirects from https to {shown(target)}", retryable=False)
        return target

    def _check(self, url: str, response: httpx2.Response) -> None:
        status = response.status_code
        if status in _OK or status == _NO_CONTENT:
            return
        said = f"{status} {response.reason_phrase}".strip()
        beginning = self._beginning(response)
        if is_asked_again(status):
            raise AskAgain(said + beginning, retry_after(response.headers.get("retry-after"), self._clock.now()))
        hint = None
        if status in {401, 403}:
            hint = "does the job have the right `token`, `username` or `headers`?"
        raise JobError(f"GET {shown(url)} answered {said}{beginning}", hint=hint, retryable=False)

    def _beginning(self, response: httpx2.Response) -> str:
        """Return how the body begins, for a message; nothing when it cannot be read."""
        data = b""
        try:
            for chunk in response.iter_bytes(_SHOWN_BYTES):
                data += chunk
                if len(data) >= _SHOWN_BYTES:
                    break
        except httpx2.HTTPError:
            pass
        return self.quoted(data)

    def quoted(self, data: bytes) -> str:
        """Return the beginning of a body for a message, without secrets."""
        # More than is shown is masked, so that the cut does not leave half a secret unmasked.
        text = " ".join(self._masker.text(data.decode(errors="replace")).split())
        return f": {text[: _SHOWN_BYTES // 2]}" if text else ""

    def _copy(self, response: httpx2.Response, body: IO[bytes]) -> int:
        size = 0
        for chunk in response.iter_bytes(_CHUNK):
            if self._stopped.is_set():
                raise Stopped
            body.write(chunk)
            size += len(chunk)
        with self._lock:
            self._spent.bytes += response.num_bytes_downloaded
        return size

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.asked if isinstance(error, AskAgain) else None
        pause = pause_before(state.attempt_number, dice=random.random(), asked=asked)  # noqa: S311 (jitter, no secret)
        if asked is not None and asked > self._settings.max_wait:
            raise JobError(
                f"the server asks to wait {asked.total_seconds():g} s: {error}",
                hint="more than the job's `max_wait`; let it run less often, or wait longer",
            )
        if self._deadline is not None and self._clock.monotonic() + pause.total_seconds() >= self._deadline:
            raise JobError(f"the next try would come after the run's timeout; the last one: {error}")
        if asked is not None:
            self._rate.hold(asked)  # what one request is told, the others of the run keep too
        return pause.total_seconds()

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Stopped

    def _tell(self, url: str, state: RetryCallState) -> None:
        with self._lock:
            self._spent.retries += 1
        reason = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        self._log.warning(
            "sync.request_retried", url=shown(url), reason=str(reason), tries=state.attempt_number, pause_s=pause
        )
