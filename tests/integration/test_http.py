"""http calls a server as it should, and is not led astray by whatever it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from batchd.domain.job import JsonObject
from batchd.errors import JobError, RunInterrupted
from batchd.jobs.kinds.http import KIND
from tests.support.api_server import Api, Reply, api_server
from tests.support.job_context import DirectContext
from tests.support.waiting import wait_until

_TOKEN = "hunter2-and-more"


@pytest.fixture
def api() -> Iterator[Api]:
    """A server that answers "done"."""
    with api_server() as server:
        server.answer = lambda _: Reply(body=b"done", headers={"Content-Type": "text/plain"})
        yield server


def call(api: Api, context: DirectContext | None = None, path: str = "/cron", **params: Any) -> JsonObject:
    """Call the server and return the run's result."""
    given = KIND.params.model_validate({"url": api.url + path, **params})
    return KIND.run(given, context or DirectContext({}))


def refused(api: Api, said: str, **params: Any) -> JobError:
    """Call the server and return the error, whose message has what is `said` and no secret."""
    with pytest.raises(JobError, match=said) as caught:
        call(api, **params)
    assert _TOKEN not in str(caught.value)
    return caught.value


def test_a_call_carries_what_the_job_says(api: Api) -> None:
    """Method, query, headers, body and secret; and which run it is."""
    context = DirectContext({})
    result = call(
        api,
        context,
        path="/cron?a=1",
        method="POST",
        query={"b": "ä"},
        headers={"X-Mine": "yes"},
        body={"full": True},
        token=_TOKEN,
    )
    (request,) = api.requests
    assert (request.method, request.path, request.query) == ("POST", "/cron", {"a": "1", "b": "ä"})
    assert json.loads(request.body) == {"full": True}
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["authorization"] == f"Bearer {_TOKEN}"
    assert headers["content-type"] == "application/json"
    assert headers["x-mine"] == "yes"
    assert headers["x-batchd-run"] == str(context.run_id)
    assert headers["idempotency-key"] == f"{context.store_id}-{context.run_id}"
    assert {key: result[key] for key in ("status", "body", "size_bytes", "tries", "content_type")} == {
        "status": 200,
        "body": "done",
        "size_bytes": 4,
        "tries": 1,
        "content_type": "text/plain",
    }


def test_a_get_and_a_text_have_no_more_than_they_need(api: Api) -> None:
    """No key for what changes nothing; a text goes as it is; other places for the secret."""
    call(api, username="ann", password=_TOKEN)
    call(api, method="PUT", body="a=b", headers={"content-type": "application/x-www-form-urlencoded"})
    call(api, token=_TOKEN, token_header="X-Api-Key")
    get, put, keyed = api.requests
    assert "Idempotency-Key" not in get.headers
    assert get.headers["Authorization"].startswith("Basic ")
    assert put.body == b"a=b"
    assert put.headers["content-type"] == "application/x-www-form-urlencoded"
    assert keyed.headers["X-Api-Key"] == _TOKEN
    assert "Authorization" not in keyed.headers


def test_a_busy_server_is_asked_again_when_it_wants(api: Api) -> None:
    """`Retry-After` in seconds or as a date; every try has the same key, so that the server can tell."""
    api.script(Reply(429, headers={"Retry-After": "1"}), Reply(503), None)
    context = DirectContext({})
    assert call(api, context, method="POST", tries=3)["tries"] == 3
    first, second, third = api.requests
    assert second.at - first.at >= 1
    assert third.at - second.at >= 0.2
    assert len({request.headers["Idempotency-Key"] for request in api.requests}) == 1
    assert context.log.events("warning") == ["http.request_retried"] * 2


def test_a_server_that_asks_for_too_much_time_fails_the_attempt(api: Api) -> None:
    """Beyond `max_wait`, or beyond the run's timeout; the run's own retry comes later."""
    api.script(Reply(503, headers={"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=1))}))
    assert refused(api, "asks to wait").retryable
    api.script(Reply(503, headers={"Retry-After": "30"}))
    context = DirectContext({}, timeout=timedelta(seconds=10))
    with pytest.raises(JobError, match="after the run's timeout"):
        call(api, context)
    assert len(api.requests) == 2


def test_a_connection_that_breaks_is_tried_again(api: Api) -> None:
    """Reset, cut in the middle, or silent for too long."""
    api.script(Reply(body=b"x" * 100, sent=10), Reply(is_reset=True, sent=0, body=b"x"), Reply(delay=20))
    assert call(api, tries=4, request_timeout="1s")["body"] == "done"
    assert len(api.requests) == 4
    api.script(Reply(500, b"oops"), Reply(500, b"oops"))
    assert refused(api, r"failed 2 times, at last: 500 .*oops", tries=2).retryable


@pytest.mark.parametrize(("status", "params"), [(404, {}), (200, {"expect": [204]}), (500, {"retry_on": [503]})])
def test_an_answer_that_nobody_expected_fails_at_once(api: Api, status: int, params: dict[str, Any]) -> None:
    """With what the server said; asking again would not help."""
    api.script(Reply(status, b"no such cron"))
    error = refused(api, f"answered {status} .*no such cron", **params)
    assert not error.retryable
    assert error.result is not None
    assert error.result["status"] == status
    assert len(api.requests) == 1


def test_a_status_may_be_expected_that_is_no_success(api: Api) -> None:
    """Also one that is usually asked again, and a redirect that is not to be followed."""
    api.script(Reply(503), Reply(302, headers={"Location": "/elsewhere"}))
    assert call(api, expect=["2xx", 503])["status"] == 503
    assert call(api, expect=["302"])["status"] == 302
    assert len(api.requests) == 2


def test_a_redirect_on_the_same_host_is_followed(api: Api) -> None:
    """With the secret; a POST becomes a GET where HTTP says so, and stays one where it does not."""
    for status, method, body in ((302, "GET", b""), (307, "POST", b"{}"), (308, "POST", b"{}")):
        api.requests.clear()
        api.script(Reply(status, headers={"Location": "/there"}))
        assert call(api, method="POST", body={}, token=_TOKEN)["url"] == f"{api.url}/there"
        _, second = api.requests
        assert (second.method, second.body, second.path) == (method, body, "/there")
        assert second.headers["Authorization"] == f"Bearer {_TOKEN}"
    api.answer = lambda _: Reply(302, headers={"Location": "/again"})
    assert not refused(api, "more than 5 redirects").retryable


@pytest.mark.parametrize(
    "params", [{"token": _TOKEN}, {"headers": {"X-Key": _TOKEN}}, {"method": "POST", "body": _TOKEN}]
)
def test_a_redirect_to_another_host_does_not_get_the_secret(api: Api, params: dict[str, Any]) -> None:
    """It is refused, and the other host hears nothing, unless the job names it."""
    with api_server() as other:
        other.answer = lambda _: Reply(body=b"mine")
        host_url = other.url.replace("127.0.0.1", "localhost")
        api.script(Reply(307, headers={"Location": f"{host_url}/steal"}))
        error = refused(api, "must not see", **params)
        assert not error.retryable
        assert other.requests == []
        api.script(Reply(307, headers={"Location": f"{host_url}/fine"}))
        assert call(api, allow_hosts=["localhost"], **params)["body"] == "mine"


def test_a_redirect_of_a_call_without_secrets_is_followed_anywhere(api: Api) -> None:
    """There is nothing to lose."""
    with api_server() as other:
        other.answer = lambda _: Reply(body=b"there")
        api.script(Reply(302, headers={"Location": f"{other.url}/x"}))
        assert call(api)["body"] == "there"


def test_the_answer_is_read_to_its_end_and_kept_at_its_beginning(api: Api) -> None:
    """However long it is; a secret that it echoes is masked, also where the cut goes through it."""
    echo = b"x" * 90 + f"Bearer {_TOKEN}".encode() + b"y" * 5_000_000
    api.script(Reply(body=echo))
    result = call(api, token=_TOKEN, keep_bytes=100)
    assert result["size_bytes"] == len(echo)
    assert result["body"] == "x" * 90 + "***" + "y" * 7
    api.script(Reply(404, body=echo))
    error = refused(api, "answered 404", token=_TOKEN)
    assert _TOKEN not in json.dumps(error.result)


def test_a_stop_ends_the_wait_for_a_silent_server(api: Api) -> None:
    """At once, and not after the server's time limit."""
    api.script(Reply(delay=60))
    context = DirectContext({})
    caught: list[BaseException] = []

    def run() -> None:
        try:
            call(api, context)
        except RunInterrupted as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: api.requests, what="the request")
    context.stop()
    thread.join(10)
    assert caught


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "ftp://example.com"}, "absolute http"),
        ({"body": "x"}, "a GET has no body"),
        ({"expect": ["6xx"]}, "is no status"),
        ({"expect": [True]}, "is no status|valid"),
        ({"retry_on": [1000]}, "is no status"),
        ({"headers": {"A b": "c"}}, "is no header"),
        ({"headers": {"A": "c\nB: d"}}, "more than one line"),
        ({"username": "ann"}, "belong together"),
        ({"token_header": "X-Key"}, "needs a `token`"),
        ({"token": "t", "username": "a", "password": "b"}, "both want the Authorization header"),
    ],
)
def test_params_that_cannot_work_are_refused(wrong: dict[str, Any], said: str) -> None:
    """With a message that says why."""
    with pytest.raises(ValueError, match=said):
        KIND.params.model_validate({"url": "https://example.com", **wrong})
