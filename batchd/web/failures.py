"""Answers that failed, in the log: while the store is away, every request's does."""

from __future__ import annotations

from http import HTTPStatus

from batchd.errors import BatchdError
from batchd.telemetry.logs import get_logger
from batchd.web.repeats import Repeats

log = get_logger()


class Failures:
    """Tells of them by route, status and kind of error. For the server's event loop; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._repeats: Repeats[tuple[str, int, str]] = Repeats()

    def failed(self, route: str, status: HTTPStatus, error: Exception, now: float) -> None:
        """Count a failure, and tell of it when it is time to: with its traceback when nobody expected it."""
        requests = self._repeats.happened((route, int(status), type(error).__name__), now)
        if requests is None:
            return
        if isinstance(error, BatchdError):
            log.warning("http.failed", route=route, status=int(status), reason=str(error), requests=requests)
        else:
            log.error("http.failed", route=route, status=int(status), requests=requests, exc_info=error)

    def tell_ends(self, now: float) -> None:
        """Tell of those that have ended; the log had only their beginning."""
        for (route, status, error), requests in self._repeats.ended(now):
            log.info("http.failures_ended", route=route, status=status, reason=error, requests=requests)
