"""The JSON API: what it shows, what it changes, what it says when it cannot; each answer against its own schema."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import jsonschema
import pytest
from sqlalchemy import select

from batchd.domain.run import RunState
from batchd.store.schema import queues, runs, schedules
from batchd.store.web_schema import audit
from batchd.web import openapi
from tests.support.store_rows import (
    LONG_AGO,
    add_attempt,
    add_log_line,
    add_run,
    add_schedule,
    add_worker,
    run_row,
)
from tests.support.web import Surface

_JSON = {"Content-Type": "application/json"}
_DOCUMENT = json.loads(openapi.FILE.read_text())


@pytest.fixture
def api(surface: Surface) -> Surface:
    """The surface, with one job in its store."""
    add_schedule(surface.store)
    return surface


def shown(surface: Surface, path: str, route: str | None = None, **sent: Any) -> Any:
    """GET the path as a viewer; the answer must be as the OpenAPI document has it."""
    answer = surface.get(path, as_="viewer", **sent)
    assert answer.status_code == 200, answer.text
    _check(answer, "get", route or path.partition("?")[0])
    return answer.json()


def done(surface: Surface, path: str, route: str, *, status: int = 200, **sent: Any) -> Any:
    """POST to the path as an operator; the answer must be as the OpenAPI document has it."""
    answer = surface.post(path, as_="operator", **sent)
    assert answer.status_code == status, answer.text
    _check(answer, "post", route)
    return answer.json()


def _check(answer: httpx2.Response, method: str, route: str) -> None:
    documented = _DOCUMENT["paths"][route][method]["responses"][str(answer.status_code)]
    ((media_type, content),) = documented["content"].items()
    assert answer.headers["content-type"] == media_type
    jsonschema.validate(answer.json(), {**content["schema"], "components": _DOCUMENT["components"]})


def audited(surface: Surface) -> list[tuple[str, str, str | None, int | None]]:
    """Every row of the audit record: who, what, job, run."""
    with surface.store.reading() as connection:
        columns = (audit.c.actor, audit.c.action, audit.c.job, audit.c.run_id)
        return [tuple(row) for row in connection.execute(select(*columns).order_by(audit.c.id))]


def test_the_document_is_that_of_the_routes() -> None:
    """batchd/web/openapi.json is generated (`python -m batchd.web.openapi`); every route of the API is in it."""
    assert openapi.FILE.read_text() == openapi.text()
    for endpoint in openapi.all_endpoints():
        if endpoint.path.startswith("/api/") and endpoint.path != "/api/v1/openapi.json":
            assert endpoint.method.lower() in _DOCUMENT["paths"][endpoint.path], endpoint.path


def test_jobs_and_runs_are_shown_page_by_page(api: Surface) -> None:
    """Newest first, by keyset; with filters; a run with its attempts; its log in parts."""
    ids = [add_run(api.store, "failed", attempt=1, started_at=LONG_AGO) for _ in range(5)]
    waiting = add_run(api.store, tags=["a"])
    assert shown(api, "/api/v1/jobs")["jobs"][0]["last_run"]["id"] == waiting
    assert shown(api, "/api/v1/jobs/nightly", "/api/v1/jobs/{job}")["name"] == "nightly"
    page = shown(api, "/api/v1/runs?state=failed&limit=3")
    assert [run["id"] for run in page["runs"]] == ids[:1:-1]
    rest = shown(api, f"/api/v1/runs?state=failed&limit=3&before={page['next']}")
    assert [run["id"] for run in rest["runs"]] == ids[1::-1]
    assert rest["next"] is None
    assert [run["id"] for run in shown(api, "/api/v1/runs?tag=a&job=nightly&since=2026-01-02T00:00:00")["runs"]] == [
        waiting
    ]
    add_attempt(api.store, waiting, 1, outcome="failed", error_type="ValueError", error_message="no")
    run = shown(api, f"/api/v1/runs/{waiting}", "/api/v1/runs/{run_id}")
    assert [attempt["error_type"] for attempt in run["attempts"]] == ["ValueError"]
    for number in range(3):
        add_log_line(api.store, waiting, f"line {number}")
    log = shown(api, f"/api/v1/runs/{waiting}/log?limit=2", "/api/v1/runs/{run_id}/log")
    more = shown(api, f"/api/v1/runs/{waiting}/log?after={log['next']}", "/api/v1/runs/{run_id}/log")
    assert [line["message"] for line in (*log["lines"], *more["lines"])] == ["line 0", "line 1", "line 2"]


def test_fires_queues_daemons_incidents_and_the_record_are_shown(api: Surface) -> None:
    """Each as its schema says, with something in it."""
    fires = shown(api, "/api/v1/fires?count=3&after=2026-10-24T00:00:00Z")["fires"]
    assert [fire["utc"] for fire in fires] == [f"2026-10-24T00:0{minute}:00Z" for minute in (1, 2, 3)]
    assert len(shown(api, "/api/v1/jobs/nightly/fires?count=2", "/api/v1/jobs/{job}/fires")["fires"]) == 2
    add_run(api.store)
    assert shown(api, "/api/v1/queues")["queues"][0] == {
        "queue": "default",
        "ready": 1,
        "later": 0,
        "parked": 0,
        "running": 0,
        "paused_at": None,
    }
    add_worker(api.store, "w1")
    assert [(each["id"], each["alive"]) for each in shown(api, "/api/v1/workers")["workers"]] == [("w1", True)]
    assert shown(api, "/api/v1/incidents") == {"incidents": [], "next": None}
    assert shown(api, "/api/v1/audit") == {"entries": [], "next": None}
    assert shown(api, "/api/v1/whoami")["role"] == "viewer"
    assert api.get("/api/v1/openapi.json").json() == _DOCUMENT


def test_what_is_asked_for_is_done_and_recorded(api: Surface) -> None:
    """Trigger, enqueue, pause, resume, cancel, retry: each changes the store, each says who it was, in one commit."""
    path = "/api/v1/jobs/nightly"
    queued = done(api, f"{path}/trigger", "/api/v1/jobs/{job}/trigger", status=202, json={"params": {"table": "x"}})
    run_id = queued["run_id"]
    row = run_row(api.store, run_id)
    assert (row["params"], row["created_by"]) == ({"table": "x"}, "api")
    assert done(api, f"{path}/pause", "/api/v1/jobs/{job}/pause")["changed"]
    assert not done(api, f"{path}/pause", "/api/v1/jobs/{job}/pause")["changed"]
    with api.store.reading() as connection:
        assert connection.execute(select(schedules.c.paused_at)).scalar_one() is not None
    assert done(api, f"{path}/resume", "/api/v1/jobs/{job}/resume")["changed"]
    assert done(api, f"/api/v1/runs/{run_id}/cancel", "/api/v1/runs/{run_id}/cancel")["outcome"] == "cancelled"
    done(api, f"/api/v1/runs/{run_id}/retry", "/api/v1/runs/{run_id}/retry", status=202)
    assert run_row(api.store, run_id)["state"] == RunState.QUEUED
    done(api, "/api/v1/queues/default/pause", "/api/v1/queues/{queue}/pause")
    with api.store.reading() as connection:
        assert connection.execute(select(queues.c.paused_at)).scalar_one() is not None
    done(api, "/api/v1/queues/default/resume", "/api/v1/queues/{queue}/resume")
    asked = {"name": "nightly", "unique_key": "k", "delay": "5m", "tags": ["t"]}
    first = done(api, "/api/v1/runs", "/api/v1/runs", status=202, json=asked)
    again = done(api, "/api/v1/runs", "/api/v1/runs", status=202, json=asked)
    assert (first["run_id"], first["outcome"], again["outcome"]) == (again["run_id"], "queued", "kept")
    me = "the-operator"
    assert audited(api) == [
        (me, "trigger", "nightly", run_id),
        (me, "pause", "nightly", None),
        (me, "resume", "nightly", None),
        (me, "cancel", "nightly", run_id),
        (me, "retry", "nightly", run_id),
        (me, "pause_queue", None, None),
        (me, "resume_queue", None, None),
        (me, "enqueue", "nightly", first["run_id"]),
        (me, "enqueue", "nightly", first["run_id"]),
    ]


def test_a_request_sent_twice_is_done_once(api: Surface) -> None:
    """The same Idempotency-Key gives the same run; another request is refused; another caller's key is its own."""
    path = "/api/v1/jobs/nightly/trigger"
    said = {"Idempotency-Key": "abc-1"}
    first, second = (api.post(path, as_="operator", headers=said, json={}) for _ in range(2))
    assert first.json() == second.json()
    assert ("idempotency-replayed" in first.headers, second.headers["idempotency-replayed"]) == (False, "true")
    other = api.post(path, as_="operator", headers=said, json={"params": {"table": "y"}})
    assert (other.status_code, other.json()["detail"]) == (422, "this Idempotency-Key was used for another request")
    cron = api.post("/api/cron/nightly", as_="cron", headers={**said, "Prefer": "respond-async"})
    assert cron.status_code == 202
    assert cron.json()["run_id"] != first.json()["run_id"]
    assert api.post(path, as_="operator", headers={"Idempotency-Key": "a b"}, json={}).status_code == 422


_MISTAKES: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/api/v1/jobs/other", {}, 404, "not_found"),
    ("GET", "/api/v1/runs/99", {}, 404, "not_found"),
    ("GET", "/api/v1/runs/1e3", {}, 404, "not_found"),
    ("GET", "/api/v1/runs/0000000000000000000199999999999999999999", {}, 404, "not_found"),
    ("GET", "/api/v1/runs/99/log", {}, 404, "not_found"),
    ("GET", "/api/v1/runs?limit=1000", {}, 422, "invalid"),
    ("GET", "/api/v1/runs?colour=red", {}, 422, "invalid"),
    ("GET", "/api/v1/runs?job=a&job=b", {}, 422, "invalid"),
    ("GET", "/api/v2/runs", {}, 404, "not_found"),
    ("PATCH", "/api/v1/runs", {}, 405, "method_not_allowed"),
    ("POST", "/api/v1/jobs/other/trigger", {"json": {}}, 404, "not_found"),
    ("POST", "/api/v1/runs", {"json": {"name": "command", "params": {"command": ["id"]}}}, 404, "not_found"),
    ("POST", "/api/v1/jobs/nightly/trigger", {"content": b"{"}, 415, "media_type"),
    ("POST", "/api/v1/jobs/nightly/trigger", {"content": b"{", "headers": _JSON}, 400, "not_json"),
    ("POST", "/api/v1/jobs/nightly/trigger", {"json": {"params": 1}}, 422, "invalid"),
    ("POST", "/api/v1/jobs/nightly/trigger", {"json": {"params": {"secret": "x"}}}, 422, "invalid"),
    ("POST", "/api/v1/jobs/nightly/trigger", {"json": {"params": {"x": "y" * 70_000}}}, 413, "too_large"),
    ("POST", "/api/v1/runs", {"json": {"name": "nightly", "priority": 10_000}}, 422, "invalid"),
    ("POST", "/api/v1/runs", {"json": {"name": "nightly", "delay": "soon"}}, 422, "invalid"),
    ("POST", "/api/v1/runs/99/cancel", {}, 404, "not_found"),
    ("POST", "/api/v1/queues/other/pause", {}, 404, "not_found"),
]


def test_a_mistake_is_told_as_a_problem(surface_on_sqlite: Surface) -> None:
    """RFC 9457, with a word for programs and a sentence for people; nothing is changed."""
    add_schedule(surface_on_sqlite.store)
    for method, path, sent, status, code in _MISTAKES:
        answer = surface_on_sqlite.request(method, path, as_="operator", **sent)
        problem = answer.json()
        assert answer.status_code == status, (method, path, sent, answer.text)
        assert (problem["status"], problem["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["detail"]
    assert audited(surface_on_sqlite) == []


def test_a_finished_run_is_neither_cancelled_nor_retried(api: Surface) -> None:
    """409 with what can be done."""
    run_id = add_run(api.store, "succeeded")
    for action in ("cancel", "retry"):
        answer = api.post(f"/api/v1/runs/{run_id}/{action}", as_="operator")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_possible")
        assert answer.json()["hint"]


@pytest.mark.parametrize("query", ["job=%00", "queue=a%00b", "tag=%00", "since=9999-12-31T23:59:59-12:00"])
def test_a_filter_that_no_database_understands_is_refused(api: Surface, query: str) -> None:
    """NUL, and a moment that UTC has not: told, and no error of the server."""
    answer = api.get(f"/api/v1/runs?{query}", as_="viewer")
    assert answer.status_code == 422
    _check(answer, "get", "/api/v1/runs")


def test_a_name_that_no_database_understands_is_nobodys(api: Surface) -> None:
    """In a path NUL is as unknown as any other name."""
    assert api.get("/api/v1/jobs/a%00b", as_="viewer").status_code == 404
    for path in ("/api/v1/jobs/a%00b/pause", "/api/v1/jobs/a%00b/trigger", "/api/v1/queues/a%00b/pause"):
        assert api.post(path, as_="operator", json={}).status_code == 404
    odd = {"params": {"dry_run": {"a": "\0"}}}
    assert api.post("/api/v1/jobs/nightly/trigger", as_="operator", json=odd).status_code == 422


def test_a_cron_caller_waits_for_the_result(api: Surface) -> None:
    """200 with the result, 500 for a failure; 202 when the wait is over; by GET as by POST, with the secret alone."""
    run_id = api.post("/api/cron/nightly", as_="cron", headers={"Prefer": "wait=0"}).json()["run_id"]
    key = {"Idempotency-Key": "tick"}
    first = api.get("/api/cron/nightly", as_="cron", headers={"Prefer": "wait=0", **key})
    assert (first.status_code, first.headers["location"]) == (202, f"/api/v1/runs/{run_id + 1}")
    _end(api, run_id + 1, "succeeded", result={"deleted": 3})
    answer = api.get("/api/cron/nightly", as_="cron", headers=key)
    _check(answer, "get", "/api/cron/{job}")
    assert (answer.status_code, answer.json()["result"]) == (200, {"deleted": 3})
    _end(api, run_id + 1, "failed", error="no such table")
    failed = api.get("/api/cron/nightly", as_="cron", headers=key)
    assert (failed.status_code, failed.json()["detail"], failed.json()["run_id"]) == (500, "no such table", run_id + 1)
    refused = api.get("/api/cron/nightly", as_="viewer")
    assert refused.status_code == 403
    assert "cron_secret" in refused.json()["hint"]
    assert api.get("/api/cron/nightly", headers=api.sign_in()).status_code == 403, "a link must not run a job"
    assert api.get("/api/v1/jobs", as_="cron").status_code == 401, "the secret opens nothing else"
    assert api.get("/api/cron/other", as_="cron").status_code == 404


def _end(api: Surface, run_id: int, state: str, **columns: Any) -> None:
    now = datetime.now(UTC)
    with api.store.writing() as connection:
        values = {"state": state, "started_at": now - timedelta(seconds=2), "finished_at": now, **columns}
        connection.execute(runs.update().where(runs.c.id == run_id).values(values))
