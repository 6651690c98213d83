"""The rules of sync that need neither a server nor a database."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from batchd.jobs.http.origin import may_have_credentials, shown, with_query, without_query
from batchd.jobs.http.retry import is_asked_again, pause_before, retry_after
from batchd.jobs.sync.guard import refusal
from batchd.jobs.sync.json_text import json_text, parse_json
from batchd.jobs.sync.paging import link_next
from batchd.jobs.sync.rate import RateLimit
from batchd.jobs.sync.record_path import MISSING, found_at, parse_path
from batchd.jobs.sync.watermark import moment_of, written_moment

_NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 0 ", 0),
        ("Wed, 20 May 2026 12:01:30 GMT", 90),
        ("Wed, 20 May 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("9" * 30, None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(header: str | None, seconds: int | None) -> None:
    """What is neither is not obeyed; a date that is past means now."""
    assert retry_after(header, _NOW) == (None if seconds is None else timedelta(seconds=seconds))


@given(st.integers(1, 10_000), st.floats(0, 1), st.none() | st.integers(0, 10_000))
def test_a_pause_grows_to_a_minute_and_is_never_less_than_asked(attempt: int, dice: float, asked: int | None) -> None:
    """Half of it is jitter; what the server asks for comes on top of nothing else than a second."""
    wanted = None if asked is None else timedelta(seconds=asked)
    pause = pause_before(attempt, dice=dice, asked=wanted)
    if wanted is None:
        assert timedelta(milliseconds=250) <= pause <= timedelta(minutes=1)
    else:
        assert wanted <= pause <= wanted + timedelta(seconds=1)


def test_which_statuses_may_pass() -> None:
    """Exactly 408, 425, 429 and 5xx of all that there are."""
    passing = [status for status in range(300, 600) if is_asked_again(status)]
    assert passing == [408, 425, 429, *range(500, 600)]


@pytest.mark.parametrize(
    ("url", "allowed", "may"),
    [
        ("https://api.test/x", (), True),
        ("https://API.test:443/x", (), True),
        ("https://api.test:8443/x", (), False),
        ("http://api.test/x", (), False),
        ("https://other.test/x", (), False),
        ("https://api.test.evil.test/x", (), False),
        ("https://other.test/x", ("Other.Test",), True),
        ("http://other.test/x", ("other.test",), False),
        ("https://api.test@evil.test/x", (), False),
    ],
)
def test_credentials_belong_to_an_origin(url: str, allowed: tuple[str, ...], may: bool) -> None:
    """Scheme, host and port; a named host must not fall back from https to http."""
    assert may_have_credentials(url, "https://api.test/users", allowed) is may


def test_urls_are_shown_and_kept_without_secrets() -> None:
    """User, password and query are not shown; what the config gives goes out of a kept URL and comes back."""
    assert shown("https://me:secret@api.test/x?key=secret#y") == "https://api.test/x"
    query = {"key": "s&cret", "page": "1"}
    kept = without_query("https://api.test/x?key=s%26cret&page=2&a=", query)
    assert kept == "https://api.test/x?page=2&a="
    assert with_query(kept, query) == "https://api.test/x?page=2&a=&key=s%26cret"


@pytest.mark.parametrize(
    ("header", "target"),
    [
        (None, None),
        ('<https://a.test/?p=2>; rel="next"', "https://a.test/?p=2"),
        ("</x?p=1,2>; rel=next", "/x?p=1,2"),
        ('<https://a.test/1>; rel="prev", <https://a.test/3>; title="x"; rel="last next"', "https://a.test/3"),
        ('<https://a.test/1>; rel="nextish"', None),
        ("nonsense", None),
    ],
)
def test_links_of_rfc_8288(header: str | None, target: str | None) -> None:
    """The target whose relations include `next`, whatever stands around it."""
    assert link_next(header) == target


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", {"b.c": [1, {"d": 2}]}),
        ('a."b.c".1.d', 2),
        ('a."b.c".7', MISSING),
        ("a.x.y", MISSING),
        ("n", None),
        ("n.x", MISSING),
    ],
)
def test_paths_lead_into_a_record(path: str, value: Any) -> None:
    """What is not there is told apart from null."""
    assert found_at({"a": {"b.c": [1, {"d": 2}]}, "n": None}, parse_path(path)) == value


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", 'a"b', '"a'])
def test_what_is_no_path_is_refused(path: str) -> None:
    """With advice."""
    with pytest.raises(ValueError, match="not a path"):
        parse_path(path)


_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_DOCUMENTS)
def test_json_survives(document: Any) -> None:
    """Reading and writing it again changes nothing, decimals included."""
    assert json.loads(json_text(parse_json(json.dumps(document)))) == document


def test_decimals_keep_their_digits() -> None:
    """No float is between the text and the text; NaN is no JSON."""
    assert json_text(parse_json('{"a": [1.10, 12345678901234567890.123456789e5]}')) == (
        '{"a": [1.10, 12345678901234567890.123456789e5]}'
    )
    with pytest.raises(ValueError, match="NaN is not JSON"):
        parse_json("[NaN]")


@pytest.mark.parametrize(
    ("missing", "present", "fetched", "most", "removes", "refused"),
    [
        (10, 100, 90, "10%", True, False),
        (11, 100, 89, "10%", True, True),
        (11, 100, 89, 11, True, False),
        (12, 100, 88, 11, True, True),
        (50, 100, 50, "10%", False, False),
        (0, 100, 0, "10%", False, True),
        (0, 100, 0, "100%", False, False),
        (100, 100, 0, 50, True, True),
        (100, 100, 0, "100%", True, False),
        (0, 0, 0, "10%", True, False),
        (1, 1, 5, "0%", True, True),
    ],
)
def test_too_much_missing_is_refused(
    missing: int, present: int, fetched: int, most: str | int, removes: bool, refused: bool
) -> None:
    """A share or a number; an empty list for a table with rows only with all of it allowed."""
    said = refusal(missing=missing, present=present, fetched=fetched, most=most, removes=removes, job="sync-users")
    assert (said is not None) is refused
    assert said is None or "batchd trigger sync-users --param max_missing=100%" in said


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-05-20T12:00:00Z", _NOW),
        ("2026-05-20T14:00:00+02:00", _NOW),
        ("2026-05-20 12:00", _NOW),
        (1779278400, _NOW),
        (1779278400000, _NOW),
        (parse_json("1779278400.0"), _NOW),
        (True, None),
        ("yesterday", None),
        (None, None),
        ([], None),
    ],
)
def test_moments_of_records(value: Any, moment: datetime | None) -> None:
    """ISO 8601 or a number since 1970; without an offset UTC."""
    assert moment_of(value) == moment


def test_moments_are_written_as_the_server_wants_them() -> None:
    """Never later than they are: what is cut off is cut towards the past."""
    late = _NOW + timedelta(milliseconds=999)
    assert written_moment(late, "iso") == "2026-05-20T12:00:00.999000Z"
    assert written_moment(late, "date") == "2026-05-20"
    assert written_moment(late, "unix") == "1779278400"
    assert written_moment(late, "unix_ms") == "1779278400999"


def test_turns_are_handed_out_at_a_steady_rate() -> None:
    """The first at once, each further one a gap later; a hold moves all of them."""

    class Clock:
        def now(self) -> datetime:
            return _NOW

        def monotonic(self) -> float:
            return 100.0

    rate = RateLimit(Clock(), 4)
    assert [rate.next_turn().total_seconds() for _ in range(3)] == [0.0, 0.25, 0.5]
    rate.hold(timedelta(seconds=10))
    assert rate.next_turn().total_seconds() == 10.0
    free = RateLimit(Clock(), None)
    assert [free.next_turn().total_seconds() for _ in range(3)] == [0.0] * 3


def test_a_daemon_that_fetches_nothing_holds_no_http_or_json_library() -> None:
    """Finding the kinds imports all of them, and must not import what only a run needs."""
    asked = (
        "import sys; from batchd.jobs.catalog import kinds; kinds(); print(len({'httpx2', 'msgspec'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
