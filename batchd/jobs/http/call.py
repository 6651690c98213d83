"""One call of a URL: sent, tried again where that may help, its answer read to the end and its beginning kept.

The tries run in a thread of their own, so that a stop ends the attempt at once, however long the server is silent. The
answer is read to its end, however long: a server may stop working when the one who asked hangs up.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urljoin

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from batchd import __version__
from batchd.clock import Clock, SystemClock
from batchd.errors import JobError
from batchd.jobs.contract import JobContext
from batchd.jobs.http.origin import may_have_credentials, origin_of, shown
from batchd.jobs.http.retry import AskAgain, pause_before, retry_after
from batchd.jobs.http.trust import trusted
from batchd.telemetry.masking import Masker

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD = frozenset({307, 308})
_MOST_REDIRECTS = 5
_LOOK_EVERY = timedelta(milliseconds=50)
_CHUNK = 1 << 16
_LONGEST_SECRET = 8_192
_QUOTED = 300
_DENIED = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Call:
    """What to send and what to make of the answer. `secrets` are never shown.

    `is_confidential` says that headers or body are meant for nobody but the URL's own origin and `allow_hosts`.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    is_confidential: bool
    allow_hosts: Collection[str]
    expected: Collection[int]
    retried: Collection[int]
    request_timeout: timedelta
    tries: int
    max_wait: timedelta
    kept_bytes: int
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True)
class Answered:
    """An expected answer; `beginning` is masked. `tries` counts the requests that were sent, redirects aside."""

    status: int
    url: str
    content_type: str | None
    size: int
    beginning: str
    seconds: float
    tries: int


def make_call(call: Call, context: JobContext) -> Answered:
    """Return the answer. Raises JobError when there is none that was expected, RunInterrupted at a stop."""
    caller = Caller(call, context, SystemClock())
    threads = ThreadPoolExecutor(1, thread_name_prefix="http")
    try:
        future = threads.submit(copy_context().run, caller.answer)
        while not future.done():
            context.raise_if_stopping()
            wait([future], _LOOK_EVERY.total_seconds())
        return future.result()
    finally:
        caller.close()
        threads.shutdown(wait=False)


class Caller:
    """Sends until there is an answer. `answer` is for one thread, `close` for any."""

    def __init__(self, call: Call, context: JobContext, clock: Clock) -> None:
        self._call = call
        self._log = context.log
        self._clock = clock
        left = context.time_left()
        self._deadline = None if left is None else clock.monotonic() + left.total_seconds()
        self._closed = threading.Event()
        self._masker = Masker(call.secrets)
        self._sent = 0
        self._client = httpx2.Client(
            timeout=call.request_timeout.total_seconds(), follow_redirects=False, verify=trusted()
        )

    def answer(self) -> Answered:
        """Return the expected answer; raises JobError."""
        retrying = Retrying(
            retry=retry_if_exception_type(AskAgain),
            stop=stop_after_attempt(self._call.tries),
            wait=self._pause,
            sleep=self._sleep,
            before_sleep=self._tell,
            reraise=True,
        )
        began = self._clock.monotonic()
        try:
            return retrying(self._once, began)
        except AskAgain as error:
            times = "" if self._call.tries == 1 else f" {self._call.tries} times, at last"
            raise JobError(f"{self._name(self._call.url)} failed{times}: {error}") from error

    def close(self) -> None:
        """End every wait, and the connection."""
        self._closed.set()
        self._client.close()

    def _once(self, began: float) -> Answered:
        self._sent += 1
        try:
            response = self._final_response()
            try:
                beginning, size = self._read(response)
            finally:
                response.close()
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            said = self._masker.text(str(error))
            raise JobError(f"{self._name(self._call.url)}: cannot be sent: {said}", retryable=False) from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise AskAgain(f"{type(error).__name__}: {self._masker.text(str(error)) or 'no answer'}") from error
        self._check(response, beginning)
        return Answered(
            status=response.status_code,
            url=shown(str(response.url)),
            content_type=response.headers.get("content-type"),
            size=size,
            beginning=beginning,
            seconds=round(self._clock.monotonic() - began, 3),
            tries=self._sent,
        )

    def _final_response(self) -> httpx2.Response:
        """Send the request and follow where it may go; the body of what is returned is not read yet."""
        url, method, body = self._call.url, self._call.method, self._call.body
        for _ in range(_MOST_REDIRECTS + 1):
            request = httpx2.Request(method, url, headers=self._headers(body), content=body)
            response = self._client.send(request, stream=True)
            status, location = response.status_code, response.headers.get("location")
            if status not in _REDIRECTS or location is None or status in self._call.expected:
                return response
            response.close()
            url = self._redirected(url, location)
            if status not in _KEEP_METHOD and method not in {"GET", "HEAD"}:
                method, body = "GET", None
        raise JobError(f"{self._name(self._call.url)}: more than {_MOST_REDIRECTS} redirects", retryable=False)

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {"User-Agent": f"batchd/{__version__}", "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}
        own = {name: value for name, value in self._call.headers.items() if body is not None or not _is_of_body(name)}
        taken = {name.lower() for name in own}
        return {name: value for name, value in headers.items() if name.lower() not in taken} | own

    def _redirected(self, url: str, location: str) -> str:
        name, target = self._name(url), urljoin(url, location)
        try:
            scheme, host, _ = origin_of(target)
        except ValueError as error:
            raise JobError(f"{name} redirects to what is no http(s) URL", retryable=False) from error
        if origin_of(url)[0] == "https" and scheme == "http":
            raise JobError(f"{name} redirects from https to {shown(target)}", retryable=False)
        if self._call.is_confidential and not may_have_credentials(target, self._call.url, self._call.allow_hosts):
            raise JobError(
                f"{name} redirects to {shown(target)}, which must not see the job's credentials, headers or body",
                hint=f'call that URL itself, or write allow_hosts = ["{host}"]',
                retryable=False,
            )
        return target

    def _read(self, response: httpx2.Response) -> tuple[str, int]:
        """Read the body to its end; return its beginning, masked, and how long it is."""
        # More than is kept is masked, so that the cut does not leave half a secret.
        beginning, size = b"", 0
        for chunk in response.iter_bytes(_CHUNK):
            if self._closed.is_set():
                break
            size += len(chunk)
            if len(beginning) < self._call.kept_bytes + _LONGEST_SECRET:
                beginning += chunk[: self._call.kept_bytes + _LONGEST_SECRET - len(beginning)]
        return self._masker.text(beginning.decode("utf-8", "replace"))[: self._call.kept_bytes], size

    def _check(self, response: httpx2.Response, beginning: str) -> None:
        status = response.status_code
        if status in self._call.expected:
            return
        text = " ".join(beginning.split())[:_QUOTED]
        said = f"{status} {response.reason_phrase}".strip() + (f": {text}" if text else "")
        if status in self._call.retried:
            raise AskAgain(said, retry_after(response.headers.get("retry-after"), self._clock.now()))
        hint = "does the job have the right `token`, `password` or `headers`?" if status in _DENIED else None
        result = {"status": status, "body": beginning, "tries": self._sent}
        raise JobError(f"{self._name(str(response.url))} answered {said}", hint=hint, retryable=False, result=result)

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.asked if isinstance(error, AskAgain) else None
        pause = pause_before(state.attempt_number, dice=random.random(), asked=asked)  # noqa: S311 (jitter, no secret)
        if asked is not None and asked > self._call.max_wait:
            raise JobError(
                f"the server asks to wait {asked.total_seconds():g} s: {error}",
                hint="more than the job's `max_wait`; let it run less often, or wait longer",
            )
        if self._deadline is not None and self._clock.monotonic() + pause.total_seconds() >= self._deadline:
            raise JobError(f"the next try would come after the run's timeout; the last one: {error}")
        return pause.total_seconds()

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise JobError("the run was told to stop")  # nobody hears it: the attempt has left

    def _tell(self, state: RetryCallState) -> None:
        reason = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        self._log.warning(
            "http.request_retried",
            url=shown(self._call.url),
            reason=str(reason),
            tries=state.attempt_number,
            pause_s=round(pause, 3),
        )

    def _name(self, url: str) -> str:
        return f"{self._call.method} {self._masker.text(shown(url))}"


def _is_of_body(name: str) -> bool:
    return name.lower() in {"content-type", "content-length", "content-encoding"}
