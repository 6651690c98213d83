"""How much anybody may ask: requests per source, failed sign-ins, requests at work, the size of a body."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from http import HTTPStatus

from batchd.domain.queue import Rate
from batchd.web.problems import Problem

MOST_AT_WORK = 64
"""Requests that the server works on at once; streams (SSE) have a limit of their own."""

LONGEST_REQUEST_SECONDS = 10.0
_MOST_FAILURES = 10
_FAILURES_WITHIN_SECONDS = 60.0
_MOST_SOURCES = 10_000


class Buckets:
    """A token bucket for each source: as many at once as the rate allows in its period, refilled evenly."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._most = float(rate.count)
        self._per_second = rate.count / rate.period.total_seconds()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, source: str, now: float) -> float:
        """Take one and return 0, or return after how many seconds there will be one."""
        left, at = self._left.pop(source, (self._most, now))
        left = min(self._most, left + max(0.0, now - at) * self._per_second)
        wait = 0.0 if left >= 1 else (1 - left) / self._per_second
        self._left[source] = (left - 1 if wait == 0 else left, now)
        if len(self._left) > _MOST_SOURCES:
            self._left.popitem(last=False)
        return wait


class Failures:
    """Wrong tokens of each source: after ten within a minute it has to wait."""

    def __init__(self) -> None:
        self._at: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, source: str, now: float) -> None:
        """Raise Problem 429 when the source has to wait."""
        failed = self._at.get(source)
        if failed is None:
            return
        while failed and failed[0] <= now - _FAILURES_WITHIN_SECONDS:
            failed.popleft()
        if len(failed) >= _MOST_FAILURES:
            raise too_many(failed[0] + _FAILURES_WITHIN_SECONDS - now, "too many wrong tokens")

    def add(self, source: str, now: float) -> None:
        """Remember a wrong token."""
        self._at.setdefault(source, deque(maxlen=_MOST_FAILURES)).append(now)
        self._at.move_to_end(source)
        if len(self._at) > _MOST_SOURCES:
            self._at.popitem(last=False)


class Limits:
    """All limits of one server. For its event loop."""

    def __init__(self) -> None:
        self.failures = Failures()
        self._buckets: Buckets | None = None
        self._at_work = 0

    def check_rate(self, source: str, rate: Rate, now: float) -> None:
        """Raise Problem 429 when the source has asked too much; another rate than before counts from here on."""
        if self._buckets is None or self._buckets.rate != rate:
            self._buckets = Buckets(rate)
        wait = self._buckets.take(source, now)
        if wait:
            raise too_many(wait, "too many requests")

    def begin(self) -> None:
        """Count a request as at work; raises Problem 503 when there are too many. `end` must follow."""
        if self._at_work >= MOST_AT_WORK:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many requests at once", headers={"Retry-After": "1"}
            )
        self._at_work += 1

    def end(self) -> None:
        """Count it as done."""
        self._at_work -= 1


def too_many(wait_seconds: float, said: str) -> Problem:
    """Return the problem of a source that has to wait."""
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS, "too_many", said, headers={"Retry-After": str(max(1, math.ceil(wait_seconds)))}
    )
