"""Log lines: one JSON object each, secrets masked last, no local variables, bounded."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from batchd.telemetry.logs import configure_logging, get_logger
from batchd.telemetry.masking import Masker
from batchd.telemetry.thinning import Thinning


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """What was written, with everything put back afterwards."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    yield io.StringIO()
    structlog.reset_defaults()
    root.handlers, root.level = before
    logging.captureWarnings(capture=False)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    """Return the parsed lines."""
    return [json.loads(line) for line in out.getvalue().splitlines()]


def raised() -> ValueError:
    """Return an error with a secret in its message and another in a local variable of its stack."""
    try:
        int("hunter2-secret")
    except ValueError as error:
        return error
    raise AssertionError


def configure(out: io.StringIO, **options: Any) -> None:
    """Log JSON to `out`."""
    configure_logging(level="info", log_format="json", secrets=["hunter2-secret"], stream=out, **options)


def test_a_line_is_one_json_object_with_the_standard_fields(out: io.StringIO) -> None:
    """As documented."""
    configure(out)
    with structlog.contextvars.bound_contextvars(run_id=7, job="a"):
        get_logger().info("run.started", kind="cleanup", lag_s=0.25)
    (line,) = lines(out)
    assert line["ts"].endswith("Z")
    assert (line["level"], line["event"], line["msg"]) == ("info", "run.started", "started, 0.25 s after its time")
    assert (line["run_id"], line["job"], line["service"]) == (7, "a", "batchd")


def test_no_secret_is_written_wherever_it_stands(out: io.StringIO) -> None:
    """In a field, in a nested value, in an exception, in a library's message, under a telling key, in a URL."""
    sunk: list[Any] = []
    configure(out, sink=sunk.append)
    log = get_logger(run_id=1)
    log.error("loop.failed", exc_info=raised())
    log.info("run.finished", result={"deep": ["hunter2-secret"]}, password="hunter2-other")
    log.info("store.waiting", reason="postgresql://u:hunter2-url@h/d?sslpassword=hunter2-query")
    logging.getLogger("some.library").warning("told hunter2-secret")
    assert "hunter2" not in out.getvalue()
    assert "hunter2-secret" not in repr(sunk)
    assert len(lines(out)) == 4


def test_libraries_and_warnings_go_through_the_same_pipe(out: io.StringIO) -> None:
    """With the logger's name."""
    configure(out)
    logging.getLogger("apscheduler.scheduler").error("boom %s", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    told = [(line["event"], line["logger"]) for line in lines(out)]
    assert told == [("library.message", "apscheduler.scheduler"), ("library.message", "py.warnings")]


def test_a_huge_line_is_cut_and_says_so(out: io.StringIO) -> None:
    """The journal would split it."""
    configure(out)
    get_logger().info("run.finished", run_id=3, result={"text": "x" * 100_000})
    (line,) = lines(out)
    assert line["truncated"]
    assert line["run_id"] == 3


def test_below_the_level_nothing_is_written(out: io.StringIO) -> None:
    """Debug lines cost nothing."""
    configure(out)
    get_logger().debug("scheduler.planned", queued=1)
    assert out.getvalue() == ""


def test_the_readable_format_is_one_line_too(out: io.StringIO) -> None:
    """For a person at a terminal."""
    configure_logging(level="info", log_format="console", secrets=[], stream=out)
    get_logger().info("service.ready", jobs=3)
    assert "ready with 3 jobs" in out.getvalue()
    assert len(out.getvalue().splitlines()) == 1


@pytest.mark.parametrize("key", ["password", "api_key", "Authorization", "dsn", "session_token"])
def test_telling_keys_hide_their_value(key: str) -> None:
    """Even when nobody knew the value."""
    assert Masker([]).masked({key: "x"}) == {key: "***"}


def test_a_repeating_error_is_told_ever_more_rarely_and_its_end_once() -> None:
    """First, after 1 and 10 minutes, then each hour."""
    thinning = Thinning()
    told = [second for second in range(0, 10_000, 10) if thinning.failed(float(second))]
    assert told == [0, 60, 600, 3600, 7200]
    assert thinning.recovered(10_000.0) == 10_000.0
    assert thinning.recovered(10_001.0) is None
