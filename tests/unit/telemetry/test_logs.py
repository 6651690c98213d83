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
from hypothesis import given
from hypothesis import strategies as st

from batchd.telemetry.logs import configure_logging, get_logger, in_every_line
from batchd.telemetry.masking import Masker
from batchd.telemetry.thinning import Thinning


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """What was written, with everything put back afterwards."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    logging.captureWarnings(capture=False)  # whatever another test has left
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
    with in_every_line({"run_id": 7, "job": "a"}):
        get_logger().info("run.started", kind="cleanup", lag_s=0.25)
    get_logger().info("service.stopped", exit_code=0)
    line, later = lines(out)
    assert "run_id" not in later
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


@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f600", "\x00"])
def test_a_huge_line_is_cut_and_says_so(out: io.StringIO, letter: str) -> None:
    """The journal would split it, and the store would keep it; what is short in it stays."""
    sunk: list[Any] = []
    configure(out, sink=sunk.append)
    log = get_logger(run_id=3)
    log.info("run.finished", duration_s=0.5, result={"text": letter * 100_000})
    log.error("run.failed", error={"type": "JobError", "message": letter * 100_000, "stack": None})
    log.warning("library.message", logger="a", text=letter * 100_000)
    for line, kept in zip(lines(out), sunk, strict=True):
        assert line["truncated"]
        assert line["run_id"] == 3
        assert len(json.dumps(kept)) < 48_000
    assert all(len(line.encode()) < 48_000 for line in out.getvalue().splitlines())
    assert lines(out)[0]["duration_s"] == 0.5
    assert lines(out)[1]["error"]["type"] == "JobError"


def test_every_line_is_json_whatever_is_logged(out: io.StringIO) -> None:
    """Infinity, bytes, objects, odd line ends: nothing is lost and nothing breaks the line."""
    configure(out)
    log = get_logger()
    log.info("run.finished", result={"a": float("nan"), "b": b"x", "c": object(), "d": {1, 2}, 5: "number"})
    log.info("run.finished", result={"text": "a\ud800\u2028\nb"})
    for line in out.getvalue().split("\n")[:-1]:
        json.loads(line, parse_constant=pytest.fail)
    assert json.loads(out.getvalue().split("\n")[0])["result"]["a"] == "nan"


def test_a_jobs_fields_do_not_take_the_place_of_ours(out: io.StringIO) -> None:
    """`ts` and `level` stay what they are, and stay in front."""
    configure(out)
    get_logger().info("run.started", ts=1, level="deep", who="me")
    (line,) = lines(out)
    assert list(line)[:3] == ["ts", "level", "event"]
    assert (line["level"], line["who"]) == ("info", "me")
    assert isinstance(line["ts"], str)


def test_a_line_is_not_lost_where_stdout_is_ascii() -> None:
    """Nor where the text holds what UTF-8 cannot."""
    raw = io.BytesIO()
    ascii_out = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    for log_format in ("json", "console"):
        configure_logging(level="info", log_format=log_format, secrets=[], stream=ascii_out)
        get_logger().info("service.failed", reason="Zürich \ud800")
    first, second = raw.getvalue().decode("ascii").splitlines()
    assert json.loads(first)["reason"] == "Zürich \ud800"
    assert "Z\\xfcrich" in second


def test_a_secret_that_is_a_word_of_ours_does_not_break_the_line(out: io.StringIO) -> None:
    """Level, event and time are ours and never masked."""
    configure_logging(level="info", log_format="json", secrets=["info", "service.failed"], stream=out)
    get_logger().info("service.failed", reason="info")
    (line,) = lines(out)
    assert (line["level"], line["event"], line["reason"]) == ("info", "service.failed", "***")


def test_a_traceback_shows_no_local_variable(out: io.StringIO) -> None:
    """Neither ours nor that of a library's logging."""
    configure(out)

    def fail() -> None:
        local = "hunter2" + "-in-a-local"
        raise RuntimeError(f"{len(local)} letters")

    try:
        fail()
    except RuntimeError:
        get_logger().error("loop.failed", exc_info=True)
        logging.getLogger("library").exception("told")
    for line in lines(out):
        assert line["error"]["type"] == "RuntimeError"
        assert "test_a_traceback_shows_no_local_variable" in line["error"]["stack"]
    assert "hunter2-in" not in out.getvalue()


def test_below_the_level_nothing_is_written(out: io.StringIO) -> None:
    """Debug lines cost nothing."""
    configure(out)
    get_logger().debug("scheduler.planned", queued=1)
    assert out.getvalue() == ""


def test_the_readable_format_is_one_line_too(out: io.StringIO) -> None:
    """For a person at a terminal: what the sentence tells is not told twice, and nested values are left to the JSON."""
    configure_logging(level="info", log_format="console", secrets=[], stream=out)
    get_logger().info("service.ready", jobs=3, worker="w1")
    get_logger(job="a", run_id=4).info("run.finished", duration_s=0.5, result={"rows": 7, "deep": {"x": [1]}})
    ready, finished = out.getvalue().splitlines()
    assert ready.endswith("ready with 3 jobs  (worker=w1)")
    assert finished.endswith("a#4 succeeded after 0.5 s  (rows=7)")


@pytest.mark.parametrize("key", ["password", "api_key", "Authorization", "dsn", "session_token"])
def test_telling_keys_hide_their_value(key: str) -> None:
    """Even when nobody knew the value."""
    for value in ("x", b"x", ["x"], {"a": "x"}):
        assert Masker([]).masked({key: value}) == {key: "***"}
    assert Masker([]).masked({key: None}) == {key: None}


@given(
    st.dictionaries(
        st.sampled_from(["msg", "job", "token", "result", "lag_s", "rows"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.floats(),
            st.just({}),
            st.just({"password": "x"}),
            st.just(["hush"]),
            st.lists(st.sampled_from(["a", "hu", "sh", "\n", "=", "?key=", "://u:", "p@", "st", " "])).map("".join),
        ),
    )
)
def test_one_look_at_all_fields_finds_what_a_look_at_each_finds(fields: dict[str, Any]) -> None:
    """Secrets known by value, by the name of the field, and in URLs; numbers that JSON does not have."""
    masker = Masker(["hush", "st\nhu"])
    assert repr(masker.masked_fields(fields)) == repr(masker.masked(fields))


def test_a_repeating_error_is_told_ever_more_rarely_and_its_end_once() -> None:
    """First, after 1 and 10 minutes, then each hour."""
    thinning = Thinning()
    told = [second for second in range(0, 10_000, 10) if thinning.failed(float(second))]
    assert told == [0, 60, 600, 3600, 7200]
    assert thinning.recovered(10_000.0) == 10_000.0
    assert thinning.recovered(10_001.0) is None
