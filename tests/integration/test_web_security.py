"""What the HTTP surface refuses, and what it never says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from batchd.domain.access import Role
from batchd.domain.queue import Rate
from batchd.store import audit, tokens
from batchd.telemetry.masking import Masker
from batchd.web.layers import CSP
from batchd.web.limits import Buckets
from tests.support.asgi import InProcess
from tests.support.store_rows import add_run, add_schedule, run_row
from tests.support.web import SAME_ORIGIN, Surface, opened_surface

_PAUSE = "/api/v1/jobs/nightly/pause"


@pytest.fixture
def site(surface_on_sqlite: Surface) -> Surface:
    """The surface with one job; what is asked here is the same on every database."""
    add_schedule(surface_on_sqlite.store)
    return surface_on_sqlite


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://localhost:8787"}, 200),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_a_browser_changes_nothing_for_another_site(site: Surface, said: dict[str, str], status: int) -> None:
    """By where it says the request comes from; a cookie alone is no wish (CSRF)."""
    cookie = {"Cookie": site.sign_in()["Cookie"]}
    assert site.post(_PAUSE, headers={**cookie, **said}).status_code == status
    assert site.get("/api/v1/whoami", headers={**cookie, "Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_signing_in_is_a_wish_as_well(site: Surface) -> None:
    """Nobody is signed in by another site's page, nor with a wrong token or one for metrics."""
    form = {"token": site.tokens["operator"]}
    assert site.post("/login", data=form).status_code == 403
    assert site.post("/login", data=form, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    for role in ("wrong", "metrics"):
        assert site.post("/login", data={"token": site.tokens[role]}, headers=SAME_ORIGIN).status_code == 401


def test_a_secret_lets_in_only_in_the_way_it_was_made_for(site: Surface) -> None:
    """A token is no cookie, a cookie no token, and neither a password of Basic; also right after it was used well."""
    token, cookie = site.tokens["operator"], site.sign_in()["Cookie"]
    name, _, secret = cookie.partition("=")
    assert site.get("/api/v1/whoami", as_="operator").status_code == 200
    assert site.get("/api/v1/whoami", headers={"Cookie": cookie}).status_code == 200
    for wrong in (
        {"Cookie": f"{name}={token}"},
        {"Authorization": f"Bearer {secret}"},
        {"Authorization": f"Basic {token}"},
    ):
        assert site.get("/api/v1/whoami", headers=wrong).status_code == 401, wrong


def test_the_cookie_is_bound_to_the_site(site: Surface) -> None:
    """Out of reach of scripts, of other sites, of plain http and of other hosts."""
    answer = site.post("/login", data={"token": site.tokens["viewer"]}, headers=SAME_ORIGIN)
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name.startswith("__Host-batchd=")
    assert {each.lower() for each in attributes} >= {"httponly", "secure", "samesite=strict", "path=/"}
    assert not any(each.lower().startswith("domain") for each in attributes)
    assert site.tokens["viewer"] not in answer.headers["set-cookie"]


def test_every_answer_has_the_headers(site: Surface) -> None:
    """Also refusals; no inline script, no frame, no copy, no word about the server, no other origin let in."""
    for path, host in (("/healthz", "localhost"), ("/nothing", "localhost"), ("/api/v1/jobs", "evil")):
        headers = site.get(path, headers={"Host": host, "Origin": "https://evil.example"}).headers
        assert headers["content-security-policy"] == CSP
        assert "unsafe" not in CSP
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert not {"server", "access-control-allow-origin"} & set(headers)


def test_wrong_tokens_have_to_wait(site: Surface) -> None:
    """The eleventh within a minute is not looked at, nor is a login; another address is not touched by that."""
    for _ in range(10):
        assert site.get("/api/v1/jobs", as_="wrong").status_code == 401
    waiting = site.get("/api/v1/jobs", as_="wrong")
    assert (waiting.status_code, 0 < int(waiting.headers["retry-after"]) <= 60) == (429, True)
    assert site.post("/login", data={"token": "x"}, headers=SAME_ORIGIN).status_code == 429
    elsewhere = InProcess(site.app, address="192.0.2.7")
    said = {"Host": "localhost", "Authorization": f"Bearer {site.tokens['viewer']}"}
    assert elsewhere.request("GET", "/api/v1/jobs", headers=said).status_code == 200
    elsewhere.close()


def test_no_address_asks_more_than_its_share(site: Surface) -> None:
    """429 with the time to wait; a bucket fills again evenly."""
    with opened_surface(site.store, name="slow", rate=Rate(3, timedelta(minutes=1))) as slow:
        assert [slow.get("/healthz").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert int(slow.get("/healthz").headers["retry-after"]) <= 20
    buckets = Buckets(Rate(2, timedelta(seconds=10)))
    assert [buckets.take("a", 0.0), buckets.take("a", 0.0), buckets.take("b", 0.0)] == [0, 0, 0]
    assert buckets.take("a", 0.0) == 5.0
    assert buckets.take("a", 5.0) == 0


def test_what_could_be_understood_in_two_ways_is_refused(site: Surface) -> None:
    """Two sizes of one body, a head without an end; nothing more is read from that connection."""
    sizes = {"Content-Length": "4", "Transfer-Encoding": "chunked"}
    for said, status in ((sizes, 400), ({f"X-{n}": "a" * 100 for n in range(200)}, 431)):
        answer = site.get("/healthz", headers=said)
        assert (answer.status_code, answer.headers["connection"]) == (status, "close")


def test_asking_whether_a_job_is_there_does_not_run_it(site: Surface) -> None:
    """HEAD is what monitors and links are checked with."""
    refused = site.request("HEAD", "/api/cron/nightly", as_="cron")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
    assert site.get("/api/v1/runs", as_="viewer").json()["runs"] == []


def test_a_reloaded_config_holds_for_the_next_request(site: Surface) -> None:
    """Hosts, the size of a body, the rate: the server goes on, with others."""
    named = {"Host": "batch.example.com"}
    with opened_surface(site.store, name="reloaded") as reloaded:
        assert reloaded.get("/healthz", headers=named).status_code == 421
        assert reloaded.post(_PAUSE, as_="operator", json={}).status_code == 200
        hosts = reloaded.settings.hosts | {"batch.example.com"}
        reloaded.desk.settings = replace(
            reloaded.settings, hosts=hosts, largest_body=1, rate=Rate(2, timedelta(minutes=1))
        )
        assert reloaded.get("/healthz", headers=named).status_code == 200
        assert reloaded.post(_PAUSE, as_="operator", json={}).status_code == 413
        assert [reloaded.get("/healthz").status_code for _ in range(2)] == [200, 429]


def test_an_address_behind_a_proxy_is_believed_only_of_a_trusted_one(site: Surface) -> None:
    """The last hop that is no proxy of ours; what a client makes up before it counts for nothing."""
    said = {"X-Forwarded-For": "203.0.113.9, 198.51.100.4"}
    site.post(_PAUSE, as_="operator", headers=said)
    with opened_surface(site.store, name="proxied", trusted_proxies=frozenset({"127.0.0.1"})) as proxied:
        proxied.post("/api/v1/jobs/nightly/resume", as_="operator", headers=said)
    newest, before = audit.entries(site.store)[:2]
    assert (before.address, newest.address) == ("127.0.0.1", "198.51.100.4")


def test_a_revoked_token_opens_nothing_nor_do_its_sessions(site: Surface) -> None:
    """A token that is over neither; tables hold nothing that opens anything."""
    browser = site.sign_in()
    tokens.revoke(site.store, "the-operator")
    over = tokens.create(site.store, "over", Role.VIEWER, valid_for=timedelta(seconds=-1))
    site.tokens["over"] = over.text
    site.app.state.gate.forget()
    assert site.get("/api/v1/jobs", as_="operator").status_code == 401
    assert site.get("/api/v1/jobs", as_="over").status_code == 401
    assert site.get("/api/v1/jobs", headers=browser).status_code == 401
    assert over.text not in repr(tokens.listed(site.store))


def test_secrets_are_in_no_answer(site: Surface) -> None:
    """What a job wrote is masked once more on its way out; params hold references."""
    site.desk.mask = Masker(["hunter2"]).masked
    run_id = add_run(site.store, "failed", error="login with hunter2 failed", params={"password": {"$ref": "config"}})
    answer = site.get(f"/api/v1/runs/{run_id}", as_="viewer")
    assert "hunter2" in run_row(site.store, run_id)["error"]
    assert "hunter2" not in answer.text
    assert "***" in answer.json()["run"]["error"]


def test_too_many_requests_at_once_are_told_to_come_back(site: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with a time, instead of a queue without an end."""
    monkeypatch.setattr("batchd.web.limits.MOST_AT_WORK", 0)
    busy = site.get("/healthz")
    assert (busy.status_code, busy.json()["code"], busy.headers["retry-after"]) == (503, "busy", "1")
