"""Who is let in, to every route there is."""

from __future__ import annotations

import re
import threading
from http import HTTPStatus

import pytest

from batchd.web.app import all_endpoints
from batchd.web.call import Endpoint
from batchd.web.desk import MOST_THREADS
from batchd.web.principal import Access
from tests.support.web import SAME_ORIGIN, Surface


def _address(endpoint: Endpoint) -> str:
    return re.sub(r"\{[^}]*\}", "1", endpoint.path)


def test_no_route_opens_without_a_token_or_with_a_wrong_one(surface: Surface) -> None:
    """Every route that is not public refuses both; the public ones are these and no others."""
    public = {endpoint.path for endpoint in all_endpoints() if endpoint.access is Access.PUBLIC}
    by_a_signed_link = {"/api/v1/exports/{run_id}/file"}  # tests/integration/test_web_exports.py
    assert public <= {"/healthz", "/readyz", "/login", "/api/v1/openapi.json"} | by_a_signed_link
    for endpoint in all_endpoints():
        if endpoint.access is Access.PUBLIC:
            continue
        for as_ in (None, "wrong"):
            answer = surface.request(endpoint.method, _address(endpoint), as_=as_)
            said = f"{endpoint.method} {endpoint.path} as {as_}: {answer.status_code}"
            if endpoint.page and as_ is None and endpoint.method == "GET":
                assert answer.status_code == 303, said
                assert re.fullmatch(r"/login(\?to=%2F[a-z].*)?", answer.headers["location"]), said
            else:
                assert answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}, said
        surface.forget_failures()


def test_each_role_opens_what_it_is_for(surface: Surface) -> None:
    """A viewer changes nothing, a token for metrics reads nothing else."""
    for endpoint in all_endpoints():
        if endpoint.access is Access.OPERATOR:
            for role in ("viewer", "metrics"):
                answer = surface.request(endpoint.method, _address(endpoint), as_=role)
                assert answer.status_code == HTTPStatus.FORBIDDEN, endpoint.path
        elif endpoint.access is Access.VIEWER:
            assert surface.request(endpoint.method, _address(endpoint), as_="metrics").status_code == 403, endpoint.path


def test_a_browser_signs_in_and_out(surface: Surface) -> None:
    """The cookie is bound to the site and unreadable for scripts; after signing out it opens nothing."""
    browser = surface.sign_in("viewer")
    assert surface.get("/api/v1/whoami", headers=browser).json() == {
        "name": "the-viewer",
        "role": "viewer",
        "via": "session",
    }
    assert surface.post("/logout", headers=browser).status_code == 303
    assert surface.get("/api/v1/whoami", headers=browser).status_code == 401


def test_a_token_is_no_cookie_and_a_cookie_no_token(surface_on_sqlite: Surface) -> None:
    """Also right after each was good in its own place; another scheme than Bearer is none."""
    browser = surface_on_sqlite.sign_in("operator")
    name, _, session = browser["Cookie"].partition("=")
    token = surface_on_sqlite.tokens["operator"]
    for good in (browser, {"Authorization": f"bearer {token}"}):
        assert surface_on_sqlite.get("/api/v1/whoami", headers=good).status_code == 200
    for wrong in (
        {"Cookie": f"{name}={token}"},
        {"Authorization": f"Bearer {session}"},
        {"Authorization": f"Basic {token}"},
        {"Authorization": token},
    ):
        assert surface_on_sqlite.get("/api/v1/whoami", headers=wrong).status_code == 401, wrong


@pytest.mark.parametrize(
    ("to", "lands"),
    [
        ("/runs?state=failed&job=a%2Fb", "/runs?state=failed&job=a%2Fb"),
        ("/login?to=/login", "/"),
        *(
            (foreign, "/")
            for foreign in ("https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example")
        ),
        *((foreign, "/") for foreign in ("javascript:alert(1)", "/a\r\nSet-Cookie: a=b", "")),
    ],
)
def test_signing_in_leads_to_the_page_that_was_wanted_and_to_no_other_site(
    surface_on_sqlite: Surface, to: str, lands: str
) -> None:
    """Whether signed in just now, or before; a wrong token loses no way."""
    form = {"token": surface_on_sqlite.tokens["viewer"], "to": to}
    answer = surface_on_sqlite.post("/login", data=form, headers=SAME_ORIGIN)
    assert (answer.status_code, answer.headers["location"]) == (303, lands)
    known = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    assert surface_on_sqlite.get("/login", params={"to": to}, headers=known).headers["location"] == lands
    again = surface_on_sqlite.post("/login", data={"token": "wrong", "to": to}, headers=SAME_ORIGIN).text
    assert ('name="to"' in again) is (lands != "/")


def test_a_link_on_another_site_finds_whoever_is_signed_in(surface_on_sqlite: Surface) -> None:
    """Its request has no strict cookie: a page of ours asks once more, and that one has it."""
    answer = surface_on_sqlite.get("/runs/42", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 401
    assert 'http-equiv="refresh" content="0; url=/login?to=%2Fruns%2F42"' in answer.text
    assert surface_on_sqlite.get("/runs/42").headers["location"] == "/login?to=%2Fruns%2F42"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "localhost@evil"])
def test_a_foreign_host_name_gets_no_answer(surface: Surface, host: str) -> None:
    """DNS rebinding: even what is public is not told under another name."""
    assert surface.get("/healthz", headers={"Host": host}).status_code == 421


def test_the_first_page_needs_no_thread_that_waits_for_the_store(surface_on_sqlite: Surface) -> None:
    """Where the store hangs, and all threads with it, what needs no store is answered all the same."""
    over = threading.Event()
    waiting = [surface_on_sqlite.desk.threads.submit(over.wait, 10) for _ in range(MOST_THREADS)]
    assert surface_on_sqlite.get("/login").status_code == HTTPStatus.OK
    assert not any(each.done() for each in waiting)
    over.set()
