"""Answers that fail again and again are a few lines in the log."""

from __future__ import annotations

from http import HTTPStatus

from structlog.testing import capture_logs

from batchd.errors import DatabaseUnavailable
from batchd.web.failures import Failures


def test_failures_are_told_at_once_then_ever_more_rarely_with_a_count_then_their_end() -> None:
    """By route, status and kind of error; what nobody expected has its traceback."""
    failures = Failures()
    away, odd = DatabaseUnavailable("the store does not answer"), ZeroDivisionError("odd")
    with capture_logs() as logs:
        for tenth in range(7_000):
            failures.failed("/jobs", HTTPStatus.SERVICE_UNAVAILABLE, away, tenth / 10)
            failures.tell_ends(tenth / 10)
        failures.failed("/runs", HTTPStatus.SERVICE_UNAVAILABLE, away, 700)
        failures.failed("/runs", HTTPStatus.INTERNAL_SERVER_ERROR, odd, 700)
        failures.tell_ends(800)
    assert [(line["event"], line["route"], line["status"], line["requests"]) for line in logs] == [
        ("http.failed", "/jobs", 503, 1),
        ("http.failed", "/jobs", 503, 601),
        ("http.failed", "/jobs", 503, 6001),
        ("http.failed", "/runs", 503, 1),
        ("http.failed", "/runs", 500, 1),
        ("http.failures_ended", "/jobs", 503, 7000),
    ]
    assert logs[0]["reason"] == "the store does not answer"
    assert [line.get("exc_info") for line in logs if line["status"] == 500] == [odd]
