"""sync asks an API as it should, and is not led astray by whatever it answers.

What happens between sync and the server is the same on every database: these tests use the one that is made fastest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.errors import JobError, RunInterrupted
from tests.support.api_server import Api, Reply, Request, api_server, as_json
from tests.support.databases import open_database
from tests.support.job_context import DirectContext
from tests.support.syncing import FIELDS, expected, rows, sync, user, users_table
from tests.support.waiting import wait_until

_PAGED = {
    "link": ("/link", {"by": "link"}, None),
    "next": ("/next", {"by": "next", "path": "next"}, "items"),
    "cursor": ("/cursor", {"by": "cursor"}, "items"),
    "page": ("/pages", {"by": "page"}, "items"),
    "page, total": ("/pages", {"by": "page", "total_pages": "pages", "total": "total"}, "items"),
    "page, size": ("/pages", {"by": "page", "size": 7}, "items"),
    "offset": ("/offset", {"by": "offset"}, "items"),
    "offset, size": ("/offset", {"by": "offset", "size": 7, "total": "total"}, "items"),
}


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """A database with the table of users."""
    opened = open_database(sqlite_url)
    users_table(opened)
    yield opened
    opened.close()


@pytest.fixture
def api() -> Iterator[Api]:
    """An API of 43 users."""
    with api_server() as server:
        server.records = [user(number) for number in range(1, 44)]
        yield server


@pytest.mark.parametrize(("path", "paging", "records"), _PAGED.values(), ids=_PAGED.keys())
def test_every_way_of_paging_reads_the_whole_list(
    database: Database, api: Api, path: str, paging: dict[str, Any], records: str | None
) -> None:
    """Each record once, and no page asked for twice."""
    result = sync(database, url=api.url + path, paging=paging, records=records)
    assert (result["fetched"], result["added"], result["duplicates"]) == (43, 43, 0)
    assert rows(database) == expected(api.records)
    asked = [tuple(sorted(request.query.items())) for request in api.requests]
    assert len(set(asked)) == len(asked) == result["requests"]


@pytest.mark.parametrize("name", ["page", "page, total", "page, size", "offset, size"])
def test_pages_come_side_by_side(database: Database, api: Api, name: str) -> None:
    """With `concurrency` several requests are under way at once, and the list is the same."""
    path, paging, records = _PAGED[name]
    under_way, most, lock = 0, 0, threading.Lock()

    def slow(request: Request) -> Reply:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.05)
        with lock:
            under_way -= 1
        return api.usual(request)

    api.answer = slow
    result = sync(database, url=api.url + path, paging=paging, records=records, concurrency=3)
    assert (result["fetched"], result["added"]) == (43, 43)
    assert 2 <= most <= 3


def test_lists_in_their_wrappings(database: Database, api: Api) -> None:
    """An array under a path, and NDJSON with a line that is none."""
    assert sync(database, url=f"{api.url}/wrapped", records="data.items")["added"] == 43
    api.script(Reply(body=b'{"id": 1, "name": "one"}\n\n{broken\n{"id": 2, "name": "two"}\n'))
    optional = {"optional": ["email", "score"]}
    result = sync(database, url=f"{api.url}/ndjson", format="ndjson", **optional)
    assert (result["fetched"], result["changed"], result["rejected"]) == (3, 2, 1)


def test_a_wrong_path_is_told_with_what_is_there(database: Database, api: Api) -> None:
    """The message names the keys of the answer; a list that is found is suggested."""
    with pytest.raises(JobError, match=r"no `items`.*data, total"):
        sync(database, url=f"{api.url}/wrapped", records="items")
    with pytest.raises(JobError) as caught:
        sync(database, url=f"{api.url}/wrapped", records="data")
    assert caught.value.hint == 'is it `records = "data.items"`?'


def test_query_headers_and_credentials_are_sent(database: Database, api: Api) -> None:
    """Bearer, basic, or a header of its own; a query keeps what the URL has already."""
    sync(database, url=f"{api.url}/all?a=1", query={"b": "x y", "c": True}, headers={"X-Team": "ops"}, token="t0ken")
    sync(database, url=f"{api.url}/all", token="t0ken", token_header="X-Api-Key")
    sync(database, url=f"{api.url}/all", username="me", password="pässword")
    bearer, header, basic = api.requests
    assert bearer.query == {"a": "1", "b": "x y", "c": "true"}
    assert (bearer.headers["X-Team"], bearer.headers["Authorization"]) == ("ops", "Bearer t0ken")
    assert header.headers["X-Api-Key"] == "t0ken"
    assert "Authorization" not in header.headers
    assert basic.headers["Authorization"] == "Basic bWU6cMOkc3N3b3Jk"


_PASSING = {
    "500": Reply(status=500, body=b"oops"),
    "502": Reply(status=502),
    "408": Reply(status=408),
    "425": Reply(status=425),
    "429": Reply(status=429, headers={"Retry-After": "0"}),
    "cut in the middle": Reply(body=b'[{"id": 1}, {"id"', announced=1000, sent=10),
    "cut without a length": Reply(body=b'[{"id": 1}, {"id"', is_unbounded=True),
    "too long a length": Reply(body=b"[]", announced=500),
    "too short a length": Reply(body=b'[{"id": 1}]', announced=5),
    "nothing": Reply(body=b"", is_unbounded=True),
    "silent for too long": Reply(body=b"[]", delay=5.0),
    "reset": Reply(body=b"[1", announced=99, is_reset=True),
    "broken gzip": Reply(body=b"nonsense", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("fault", _PASSING.values(), ids=_PASSING.keys())
def test_what_may_pass_is_asked_again(database: Database, api: Api, fault: Reply) -> None:
    """One bad answer in the middle of the pages costs one retry and nothing else."""
    api.script(None, fault)
    context = DirectContext({"app": database})
    result = sync(
        database, context, url=f"{api.url}/pages", records="items", paging={"by": "page"}, request_timeout="1s"
    )
    assert (result["added"], result["retries"]) == (43, 1)
    assert context.log.events("warning") == ["sync.request_retried"]
    assert rows(database) == expected(api.records)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
def test_other_refusals_fail_at_once(database: Database, api: Api, status: int) -> None:
    """One request, an error with the beginning of the body, without what the job's secrets are."""
    api.script(Reply(status=status, body=b'{"error": "no s3cr3t-token for   you"}\n' + b"x" * 5000))
    with pytest.raises(JobError) as caught:
        sync(database, url=f"{api.url}/all", token="s3cr3t-token", query={"q": "a"})
    assert not caught.value.retryable
    assert len(api.requests) == 1
    assert str(status) in caught.value.message
    assert '{"error": "no *** for you"}' in caught.value.message
    assert len(caught.value.message) < 400


def test_a_server_that_stays_down_ends_the_attempt(database: Database, api: Api) -> None:
    """After `tries` requests; another attempt may do better."""
    api.answer = lambda _: Reply(status=503, body=b"maintenance")
    with pytest.raises(JobError, match=r"failed 2 times.*503.*maintenance") as caught:
        sync(database, url=f"{api.url}/all", tries=2)
    assert caught.value.retryable
    assert len(api.requests) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(database: Database, api: Api, form: str) -> None:
    """The next request comes no sooner than the server asks, in seconds or by a date."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    api.script(Reply(status=429, headers={"Retry-After": "1" if form == "seconds" else date}))
    sync(database, url=f"{api.url}/all")
    first, second = api.requests
    assert second.at - first.at >= 1.0


def test_a_storm_of_429_holds_everybody_back(database: Database, api: Api) -> None:
    """What one request is told, the others of the run keep too; in the end the list is whole."""
    api.script(*[Reply(status=429, headers={"Retry-After": "1"})] * 6)
    paging = {"by": "page", "size": 5}
    result = sync(database, url=f"{api.url}/pages", records="items", paging=paging, concurrency=3, tries=10)
    assert result["added"] == 43
    assert result["retries"] == 6


def test_a_wait_beyond_the_runs_end_is_not_begun(database: Database, api: Api) -> None:
    """An hour is more than the timeout leaves, or more than `max_wait`: the attempt fails at once and says so."""
    api.answer = lambda _: Reply(status=429, headers={"Retry-After": "3600"})
    context = DirectContext({"app": database}, timeout=timedelta(minutes=5))
    with pytest.raises(JobError, match="after the run's timeout"):
        sync(database, context, url=f"{api.url}/all", max_wait="2h")
    with pytest.raises(JobError, match="asks to wait 3600 s"):
        sync(database, url=f"{api.url}/all")
    assert len(api.requests) == 2


def test_a_wait_that_one_request_refuses_does_not_hold_the_others(database: Database, api: Api) -> None:
    """Side by side as well the attempt ends at once, not after an hour."""
    api.answer = lambda request: (
        Reply(status=429, headers={"Retry-After": "3600"}) if request.query["page"] == "2" else None
    )
    paging = {"by": "page", "size": 5}
    with pytest.raises(JobError, match="asks to wait 3600 s"):
        sync(database, url=f"{api.url}/pages", records="items", paging=paging, concurrency=3)


@pytest.mark.parametrize("reply", [Reply(delay=20.0), Reply(status=429, headers={"Retry-After": "60"})])
def test_a_stop_ends_every_wait(database: Database, api: Api, reply: Reply) -> None:
    """However long the server is silent, or asks to wait."""
    api.answer = lambda _: reply
    context = DirectContext({"app": database})
    ended: list[BaseException] = []

    def run() -> None:
        try:
            sync(database, context, url=f"{api.url}/all", request_timeout="60s")
        except BaseException as error:  # noqa: BLE001 (what it was is what the test asks)
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: len(api.requests) == 1, seconds=10, what="a request")
    context.stop()
    thread.join(5)
    assert [type(error) for error in ended] == [RunInterrupted]


def test_a_web_page_is_not_a_list(database: Database, api: Api) -> None:
    """HTML with status 200 fails with its beginning, at once."""
    api.script(Reply(body=b"<html><title>Please sign in</title>", headers={"Content-Type": "text/html"}))
    with pytest.raises(JobError, match=r"text/html instead of JSON.*Please sign in"):
        sync(database, url=f"{api.url}/all")
    assert len(api.requests) == 1


def test_redirects_are_followed(database: Database, api: Api) -> None:
    """On the same host with the credentials; a circle of them ends."""
    api.script(Reply(status=302, headers={"Location": "/all?page=1"}))
    assert sync(database, url=f"{api.url}/old", token="t0ken-of-job")["added"] == 43
    assert [request.headers.get("Authorization") for request in api.requests] == ["Bearer t0ken-of-job"] * 2
    api.answer = lambda _: Reply(status=301, headers={"Location": "/all"})
    with pytest.raises(JobError, match=r"more than 5 redirects"):
        sync(database, url=f"{api.url}/all")


def test_credentials_do_not_leave_their_host(database: Database, api: Api) -> None:
    """A redirect elsewhere is followed without them; a next page elsewhere is refused, unless the host is named."""
    with api_server() as other:
        other.records = api.records
        secrets: dict[str, Any] = {"token": "t0ken-of-job", "headers": {"X-Key": "k3y-of-job"}}
        api.script(Reply(status=307, headers={"Location": f"{other.url}/all"}))
        sync(database, url=f"{api.url}/all", **secrets)
        (redirected,) = other.requests
        assert not {"t0ken-of-job", "Bearer t0ken-of-job", "k3y-of-job"} & set(redirected.headers.values())
        api.script(as_json({"items": api.records[:5], "next": f"{other.url}/next?after=5"}))
        paged = {"url": f"{api.url}/next", "records": "items", "paging": {"by": "next"}, **secrets}
        with pytest.raises(JobError, match="a next page somewhere else"):
            sync(database, **paged)
        assert len(other.requests) == 1
        api.script(as_json({"items": api.records[:5], "next": f"{other.url}/next?after=5"}))
        assert sync(database, **paged, allow_hosts=["127.0.0.1"])["fetched"] == 43
        assert other.requests[-1].headers["X-Key"] == "k3y-of-job"


def test_secrets_in_a_next_url_are_not_written_down(database: Database, api: Api) -> None:
    """The checkpoint holds the next page's URL without the query that the config gives, and the next try adds it."""
    params = {"url": f"{api.url}/next", "records": "items", "paging": {"by": "next"}, "query": {"key": "k3y-of-job"}}
    api.script(None, None, Reply(status=404))
    context = DirectContext({"app": database})
    api.answer = lambda request: None if request.query.get("key") == "k3y-of-job" else Reply(status=403)
    with pytest.raises(JobError):
        sync(database, context, **params, max_rejects=0)
    kept = str(context.next_attempt().checkpoint(database))
    assert "/next?after=" in kept
    assert "k3y-of-job" not in kept


def test_circles_and_repeated_pages_are_noticed(database: Database, api: Api) -> None:
    """A cursor that was there before, and a page parameter that the server ignores, end the run with an error."""
    api.answer = lambda request: as_json({"items": api.records[:3], "next_cursor": request.query.get("cursor", "1")})
    with pytest.raises(JobError, match=r"circle|same as the one before"):
        sync(database, url=f"{api.url}/cursor", records="items", paging={"by": "cursor"})
    api.answer = lambda _: as_json({"items": api.records[:3]})
    with pytest.raises(JobError, match="the same as the one before it") as caught:
        sync(database, url=f"{api.url}/pages", records="items", paging={"by": "page", "param": "p"})
    assert "parameter" in str(caught.value.hint)


def test_records_that_move_between_pages_are_counted(database: Database, api: Api) -> None:
    """A list that grows while it is read shows some records twice, and its total changes: nothing breaks."""
    calls = 0

    def growing(_: Request) -> Reply | None:
        nonlocal calls
        calls += 1
        api.records = [user(1000 + calls), *api.records]
        return None

    api.answer = growing
    context = DirectContext({"app": database})
    paging = {"by": "page", "total": "total", "total_pages": "pages"}
    result = sync(database, context, url=f"{api.url}/pages", records="items", paging=paging)
    assert result["duplicates"] == calls - 1
    done = [done for done, _, _ in context.progressed]
    assert done == sorted(done)
    assert all(total is None or done <= total for done, total, _ in context.progressed)


def test_a_server_with_smaller_pages_than_asked_for_is_noticed(database: Database, api: Api) -> None:
    """Concurrent offsets would leave holes."""
    api.answer = lambda request: as_json(
        {"items": api.records[int(request.query["offset"]) :][:4]}  # whatever `limit` says
    )
    paging = {"by": "offset", "size": 10}
    with pytest.raises(JobError, match=r"smaller pages|fewer than `size`"):
        sync(database, url=f"{api.url}/offset", records="items", paging=paging, concurrency=2)
    assert sync(database, url=f"{api.url}/offset", records="items", paging=paging)["fetched"] == 43


def test_the_rate_limit_holds(database: Database, api: Api) -> None:
    """No more than so many requests a second, whatever the concurrency."""
    sync(
        database,
        url=f"{api.url}/pages",
        records="items",
        paging={"by": "page", "total_pages": "pages"},
        concurrency=4,
        requests_per_second=10,
    )
    moments = sorted(request.at for request in api.requests)
    assert moments[-1] - moments[0] >= 0.09 * (len(moments) - 1)


def test_an_unchanged_list_ends_the_run_in_one_request(database: Database, api: Api) -> None:
    """ETag and 304; another definition of the job asks anew, and so does a dry run."""
    api.etag = True
    params = {"url": f"{api.url}/all"}
    assert sync(database, **params)["mode"] == "full"
    again = sync(database, **params)
    assert (again["mode"], again["requests"], again["fetched"]) == ("not_modified", 1, 0)
    assert sync(database, **params, dry_run=True)["mode"] == "full"
    assert sync(database, **params, fields={"id": "id", "name": "name"})["mode"] == "full"
    api.records[0]["name"] = "new"
    assert sync(database, **params)["changed"] == 1


def test_last_modified_serves_as_well(database: Database, api: Api) -> None:
    """A server without ETag gets its own date back."""
    date = "Wed, 25 Nov 2026 12:00:00 GMT"
    api.answer = lambda request: (
        Reply(status=304)
        if request.headers.get("If-Modified-Since") == date
        else Reply(body=api.usual(request).body, headers={"Last-Modified": date})
    )
    sync(database, url=f"{api.url}/all")
    assert sync(database, url=f"{api.url}/all")["mode"] == "not_modified"


def test_a_validator_of_a_run_that_failed_is_not_used(database: Database, api: Api) -> None:
    """It is committed with the data, and there was none."""
    api.etag = True
    api.records[0]["name"] = None
    with pytest.raises(JobError):
        sync(database, url=f"{api.url}/all", max_rejects=0)
    assert sync(database, url=f"{api.url}/all")["added"] == 42


def test_only_what_changed_is_asked_for(database: Database, api: Api) -> None:
    """The latest moment that was seen, less the overlap; everything again once in `full_every`."""
    begin = datetime(2026, 5, 1, tzinfo=UTC)
    for number, record in enumerate(api.records):
        record["updated_at"] = (begin + timedelta(hours=number)).isoformat()
    since = {"field": "updated_at", "overlap": "90m", "full_every": "1d"}
    params = {"url": f"{api.url}/all", "updated_since": since, "on_missing": "delete"}
    assert sync(database, **params)["mode"] == "full"
    api.records[5] |= {"name": "changed", "updated_at": "2026-05-09T00:00:00Z"}
    second = sync(database, **params)
    assert api.requests[-1].query["updated_since"] == "2026-05-02T16:30:00Z"
    assert (second["mode"], second["fetched"], second["changed"], second["removed"]) == ("incremental", 3, 1, 0)
    assert sync(database, **params)["fetched"] == 1
    assert api.requests[-1].query["updated_since"] == "2026-05-08T22:30:00Z"
    gone = api.records.pop(0)
    assert sync(database, **params)["removed"] == 0
    later = datetime.now(UTC) + timedelta(days=2)

    class Tomorrow:
        def now(self) -> datetime:
            return later

        def monotonic(self) -> float:
            return 0.0

    context = DirectContext({"app": database}, clock=Tomorrow())
    full = sync(database, context, **params)
    assert (full["mode"], full["removed"]) == ("full", 1)
    assert gone["id"] not in [row[0] for row in rows(database)]


def test_a_failed_run_does_not_move_the_watermark(database: Database, api: Api) -> None:
    """What it would have skipped is asked for again."""
    for record in api.records:
        record["updated_at"] = "2026-05-01T00:00:00Z"
    params = {"url": f"{api.url}/all", "updated_since": {"field": "updated_at", "overlap": "0s"}}
    sync(database, **params)
    api.records[0] |= {"updated_at": "2026-06-01T00:00:00Z", "name": None}
    with pytest.raises(JobError):
        sync(database, **params, max_rejects=0)
    sync(database, **params)
    sync(database, **params)
    assert [request.query.get("updated_since") for request in api.requests] == [
        None,
        *["2026-05-01T00:00:00Z"] * 2,
        "2026-06-01T00:00:00Z",
    ]


def test_an_answer_that_is_too_large_is_not_parsed(database: Database, api: Api) -> None:
    """`max_page` keeps memory bounded; the message says what to do."""
    with pytest.raises(JobError, match=r"more than `max_page`"):
        sync(database, url=f"{api.url}/all", max_page="1kB")
    assert sync(database, url=f"{api.url}/ndjson", format="ndjson", max_page="1kB", fields=FIELDS)["added"] == 43
