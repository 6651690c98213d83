"""The pages through the whole application, on both databases: what they show, to whom, and what their forms do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.store.migrate import migrate
from tests.support.store_rows import add_attempt, add_log_line, add_run, add_schedule, add_worker, run_row
from tests.support.web import Surface, opened_surface

PAGES = ("/", "/jobs", "/jobs/nightly", "/runs", "/dead-letter", "/queues", "/exports", "/incidents", "/audit")
EVIL = "<script>alert(1)</script>\u202e"


@pytest.fixture
def surface(database: Database) -> Iterator[Surface]:
    """The app on a store with one of everything, each with text that would like to be a script."""
    migrate(database)
    add_schedule(database, next_run_at=SystemClock().now() + timedelta(hours=1), params={"token": {"$ref": "config"}})
    add_worker(database)
    with opened_surface(database) as opened:
        yield opened


def run_with_everything(store: Database) -> int:
    """A run that failed, with attempts, lines and a result."""
    now = SystemClock().now()
    run_id = add_run(
        store,
        "failed",
        reason="error",
        error=EVIL,
        started_at=now - timedelta(minutes=5),
        attempt=1,
        progress_done=5,
        progress_note=EVIL,
        result={"rows_deleted": 12_345, EVIL: EVIL, "list": [{EVIL: 1}]},
        params={EVIL: EVIL},
        tags=[EVIL],
    )
    add_attempt(store, run_id, 1, outcome="failed", error_type=EVIL, error_message=EVIL, error_traceback=EVIL)
    add_log_line(store, run_id, EVIL)
    return run_id


def test_every_page_answers_and_lets_no_text_become_a_script(surface: Surface) -> None:
    """Full of the worst that a job can write, and with a policy that would not execute it."""
    run_id = run_with_everything(surface.store)
    signed_in = surface.sign_in()
    for path in (*PAGES, f"/runs/{run_id}", "/jobs/nightly?range=24h", "/runs?day=2026-11-25", "/runs?tag=x"):
        answer = surface.get(path, headers=signed_in)
        assert answer.status_code == 200, path
        assert "<script>alert" not in answer.text, path
        assert "\u202e" not in answer.text, path
        assert "style=" not in answer.text, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_run_shows_what_it_did(surface: Surface) -> None:
    """Its numbers, its error, its lines; the log can be searched without a script."""
    run_id = run_with_everything(surface.store)
    signed_in = surface.sign_in()
    text = surface.get(f"/runs/{run_id}", headers=signed_in).text
    for said in ("12,345", "Rows deleted", "Failed for good", "&lt;script&gt;", "Retry"):
        assert said in text
    assert 'data-line="' not in surface.get(f"/runs/{run_id}?log=nothing+like+it", headers=signed_in).text


def test_secrets_are_masked(surface: Surface) -> None:
    """Where the config has one there is a mask."""
    text = surface.get("/jobs/nightly", headers=surface.sign_in()).text
    assert "***" in text
    assert "$ref" not in text


def test_a_viewer_sees_all_and_changes_nothing(surface: Surface) -> None:
    """No button, and no way around it."""
    run_id = run_with_everything(surface.store)
    signed_in = surface.sign_in("viewer")
    for path in (*PAGES, f"/runs/{run_id}"):
        answer = surface.get(path, headers=signed_in)
        assert answer.status_code == 200
        assert answer.text.count("<form") == answer.text.count('role="search"') + answer.text.count('action="/logout"')
    for path in ("/jobs/nightly/run", "/jobs/nightly/pause", f"/runs/{run_id}/retry", "/dead-letter", "/exports"):
        assert surface.post(path, headers=signed_in).status_code == 403
    assert run_row(surface.store, run_id)["state"] == "failed"


def test_forms_do_what_they_say(surface: Surface) -> None:
    """Run, cancel, retry, discard, pause, resume; each comes back with a word about it, and is in the audit."""
    signed_in = surface.sign_in()
    started = surface.post("/jobs/nightly/run", headers=signed_in)
    assert started.status_code == 303
    run_page = started.headers["location"]
    run_id = int(run_page.partition("?")[0].rpartition("/")[2])
    assert "The run is queued." in surface.get(run_page, headers=signed_in).text
    for action, state in (("cancel", "cancelled"), ("retry", "queued"), ("cancel", "cancelled")):
        assert surface.post(f"/runs/{run_id}/{action}", headers=signed_in).status_code == 303
        assert run_row(surface.store, run_id)["state"] == state
    assert surface.post(f"/runs/{run_id}/cancel", headers=signed_in).status_code == 409
    for path in ("/jobs/nightly", "/queues/default"):
        for action in ("pause", "resume"):
            assert surface.post(f"{path}/{action}", headers=signed_in).status_code == 303
    text = surface.get("/audit", headers=signed_in).text
    for said in ("nightly", "queue default", f"run {run_id}"):
        assert said in text


def test_dead_letters_come_back_or_go_by_the_dozen(surface: Surface) -> None:
    """Those selected, or all that match; nothing selected is nothing done."""
    signed_in = surface.sign_in()
    runs = [add_run(surface.store, "failed") for _ in range(3)]
    answer = surface.post("/dead-letter", data={"run": [str(runs[0])], "action": "retry"}, headers=signed_in)
    assert "number=1" in answer.headers["location"]
    answer = surface.post("/dead-letter", data={"all": "yes", "action": "discard"}, headers=signed_in)
    assert "number=2" in answer.headers["location"]
    assert "2 runs are discarded" in surface.get(answer.headers["location"], headers=signed_in).text
    assert [run_row(surface.store, run)["state"] for run in runs] == ["queued", "cancelled", "cancelled"]
    assert (
        "said=nothing" in surface.post("/dead-letter", data={"action": "retry"}, headers=signed_in).headers["location"]
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("action=discard&run=99999999999999999999999", 303),
        (f"action=discard&run={'9' * 5000}", 303),
        ("action=discard" + 1100 * "&run=1", 400),
        ("action=retry&all=yes&job=%00", 422),
    ],
)
def test_a_form_of_dead_letters_that_no_page_of_ours_sends_is_no_error_of_ours(
    surface: Surface, body: str, status: int
) -> None:
    """Numbers that no run has, more fields than there are rows, what is no text."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert surface.post("/dead-letter", content=body, headers={**surface.sign_in(), **form}).status_code == status


def test_filters_stand_in_the_url_and_pages_follow_each_other(surface: Surface) -> None:
    """Fifty a page, the rest behind a link that keeps the filter."""
    signed_in = surface.sign_in()
    for _ in range(60):
        add_run(surface.store, "succeeded")
    add_run(surface.store, "failed")
    first = surface.get("/runs?job=nightly&state=succeeded", headers=signed_in).text
    assert "60 runs match" in first
    assert first.count('<td><a href="/runs/') == 50
    link = first.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0].replace("&amp;", "&")
    assert "state=succeeded" in link
    assert surface.get(f"/runs{link}", headers=signed_in).text.count('<td><a href="/runs/') == 10
    assert surface.get("/runs?state=nonsense&before=x&day=never&parent=-1", headers=signed_in).status_code == 200


def test_a_day_of_a_jobs_calendar_is_one_of_its_own_zone(surface: Surface) -> None:
    """Its runs are behind the link, also where the day has long begun or not yet begun elsewhere."""
    add_schedule(surface.store, "apia", timezone="Pacific/Apia")
    at = datetime(2026, 11, 26, 20, tzinfo=UTC)
    add_run(surface.store, "succeeded", schedule_id="apia", created_at=at, started_at=at, finished_at=at)
    signed_in = surface.sign_in()
    found = surface.get("/runs?job=apia&day=2026-11-27", headers=signed_in).text
    assert "1 run matches" in found
    assert "2026-11-27 in Pacific/Apia" in found
    assert "0 runs match" in surface.get("/runs?day=2026-11-27", headers=signed_in).text


def test_a_filter_is_one_name_to_the_live_events(surface: Surface) -> None:
    """Whatever was written into the field: no other filter, and no address that is refused."""
    text = surface.get("/runs?job=a%26event%3Dx%23y", headers=surface.sign_in()).text
    assert '&amp;job=a%26event%3Dx%23y"' in text


@pytest.mark.parametrize(
    "path",
    [
        "/jobs?q=%00",
        "/jobs?after=%00",
        "/runs?job=%00&day=2026-11-26",
        "/runs?tag=%00",
        "/dead-letter?queue=%00",
        "/audit?job=%00",
        "/runs/1?log=%00",
        "/jobs/a%00",
    ],
)
def test_what_no_text_can_hold_is_refused(surface: Surface, path: str) -> None:
    """PostgreSQL knows no NUL; whoever asks for one is told so, on every page and with every database."""
    add_run(surface.store, "succeeded")
    answer = surface.get(path, headers=surface.sign_in())
    assert answer.status_code == (404 if path.startswith("/jobs/") else 422)
    assert "To the overview" in answer.text


def test_what_is_not_there_is_a_page_as_well(surface: Surface) -> None:
    """A person gets words and a way back; whoever is not signed in gets the form."""
    signed_in = surface.sign_in()
    for path in ("/runs/999", "/jobs/nobody", "/runs/x"):
        answer = surface.get(path, headers=signed_in)
        assert answer.status_code == 404
        assert "To the overview" in answer.text
    assert surface.get("/jobs").headers["location"] == "/login?to=%2Fjobs"
    assert "Sign in" in surface.get("/login").text
    wrong = surface.post("/login", data={"token": "x"}, headers={"Sec-Fetch-Site": "same-origin"})
    assert wrong.status_code == 401
    assert "not valid" in wrong.text


def test_a_form_of_another_site_is_refused(surface: Surface) -> None:
    """The browser says where it comes from."""
    signed_in = {**surface.sign_in(), "Sec-Fetch-Site": "cross-site"}
    assert surface.post("/jobs/nightly/pause", headers=signed_in).status_code == 403
