"""Exports over HTTP: only what is offered is started, and only the very file that was exported is ever served."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, update

from batchd.clock import SystemClock
from batchd.domain.exporting import ExportJob, ExportSettings, ExportSource
from batchd.domain.job import JsonObject
from batchd.jobs.exports.version import version_of
from batchd.store import exports, tokens
from batchd.store.audit import entries
from batchd.store.schema import runs
from batchd.web.exports.files import remove_old
from batchd.web.exports.links import Grant, grant_of, link_key, signed
from tests.support.plans import plan_of, statements
from tests.support.store_rows import add_run, add_schedule, run_row
from tests.support.web import Surface

CONTENT = b"".join(b"%d,name %d\n" % (number, number) for number in range(2000))
JOB_PARAMS: JsonObject = {"database": "app", "table": "users", "path": "out/users-{date}.csv"}
Given = tuple[Surface, ExportSettings]


@pytest.fixture
def given(surface_on_sqlite: Surface, tmp_path: Path) -> Given:
    """The surface with a job and a source on offer."""
    return offering(surface_on_sqlite, tmp_path)


@pytest.fixture
def given_on_both(surface: Surface, tmp_path: Path) -> Given:
    """The same on each database, for what one has a part in."""
    return offering(surface, tmp_path)


def offering(surface: Surface, tmp_path: Path) -> Given:
    """Let the config offer a job and a source."""
    folder = tmp_path / "exports"
    folder.mkdir()
    (tmp_path / "out").mkdir()
    source = ExportSource(
        "customers",
        "app",
        "customers",
        None,
        "deleted_at IS NULL",
        ("id", "country", "email"),
        frozenset({"country"}),
        ("csv.gz", "csv"),
        True,
    )
    settings = ExportSettings(
        str(folder),
        str(tmp_path / "state" / "links.key"),
        timedelta(days=1),
        timedelta(minutes=5),
        {"users": ExportJob(str(tmp_path / "out" / "users-{date}.csv"), JOB_PARAMS)},
        {"customers": source},
    )
    add_schedule(surface.store, "users", kind="csv_export", params=JOB_PARAMS)
    surface.desk.exports = settings
    return surface, settings


def started(surface: Surface, **asked: Any) -> Any:
    """Start an export and return what was told of it."""
    answer = surface.post("/api/v1/exports", as_="operator", json=asked)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == answer.json()["url"]
    return answer.json()


def finished(surface: Surface, run_id: int, path: Path, content: bytes = CONTENT) -> Path:
    """Let the run have written the file, as a daemon does."""
    path.write_bytes(content)
    result = {"path": str(path), "version": version_of(path.stat()), "rows": 2000, "bytes": len(content)}
    end(surface, run_id, result)
    return path


def end(surface: Surface, run_id: int, result: JsonObject) -> None:
    """Let the run have succeeded."""
    values = {"state": "succeeded", "lease_until": None, "finished_at": surface.store.dialect.now(), "result": result}
    with surface.store.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(values))


def downloadable(given: Given) -> SimpleNamespace:
    """An export of the source that has its file, and a link to it."""
    surface, settings = given
    run_id = started(surface, source="customers", format="csv")["run_id"]
    path = finished(surface, run_id, Path(settings.file_of("customers", run_id, "csv")))
    shown = surface.get(f"/api/v1/exports/{run_id}", as_="operator").json()
    return SimpleNamespace(run_id=run_id, path=path, link=shown["download"], url=shown["download"]["url"])


def test_a_source_is_exported_as_the_config_says(given_on_both: Given) -> None:
    """What the request names is checked against what is offered; the rest is the config's, and it is on record."""
    surface, settings = given_on_both
    match = {"country": ["DE", "FR"]}
    told = started(surface, source="customers", columns=["id"], match=match)
    assert (told["source"], told["state"], told["download"]) == ("customers", "queued", None)
    row = run_row(surface.store, told["run_id"])
    assert row["params"] == {
        "database": "app",
        "table": "customers",
        "where": "deleted_at IS NULL",
        "columns": ["id"],
        "match": match,
        "path": f"{settings.folder}/customers-{{run_id}}.csv.gz",
        "if_exists": "fail",
        "escape_formulas": True,
    }
    assert (row["kind"], row["created_by"], row["tags"]) == ("csv_export", "api", ["export", "export:customers"])
    assert [(each.action, each.actor) for each in entries(surface.store) if each.action == "export"] == [
        ("export", "the-operator")
    ]
    of_job = started(surface, job="users")
    assert run_row(surface.store, of_job["run_id"])["schedule_id"] == "users"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"source": "customers", "columns": ["password"]}, 422),
        ({"source": "customers", "match": {"email": "x"}}, 422),
        ({"source": "customers", "match": {"country": {"under": 1}}}, 422),
        ({"source": "customers", "match": {"country": []}}, 422),
        ({"source": "customers", "format": "xlsx"}, 422),
        ({"source": "customers", "query": "SELECT 1"}, 422),
        ({"source": "customers", "where": "true"}, 422),
        ({"source": "customers", "path": "/etc/cron.d/x"}, 422),
        ({"source": "customers", "job": "users"}, 422),
        ({"job": "users", "columns": ["id"]}, 422),
        ({}, 422),
        ({"source": "nope"}, 404),
        ({"job": "nightly"}, 404),
    ],
)
def test_what_is_not_offered_is_not_started(given: Given, asked: JsonObject, status: int) -> None:
    """No SQL, no path, no column, no format but those that the config names."""
    surface, _ = given
    assert surface.post("/api/v1/exports", as_="operator", json=asked).status_code == status
    with surface.store.reading() as connection:
        assert connection.execute(select(runs.c.id)).all() == []


def test_a_viewer_neither_starts_an_export_nor_gets_its_file(given: Given) -> None:
    """Rows are worth more than the news that they were exported."""
    surface, _ = given
    asked = {"source": "customers"}
    assert surface.post("/api/v1/exports", as_="viewer", json=asked).status_code == 403
    export = downloadable(given)
    shown = surface.get(f"/api/v1/exports/{export.run_id}", as_="viewer").json()
    assert (shown["state"], shown["download"]) == ("succeeded", None)
    assert surface.get(f"/api/v1/exports/{export.run_id}/file", as_="operator").status_code == 422  # no grant, no file


def test_a_file_is_downloaded_whole_and_in_parts(given_on_both: Given) -> None:
    """By whoever has the link, with nothing else; a broken download goes on, and never with another file's bytes."""
    surface, _ = given_on_both
    export = downloadable(given_on_both)
    whole = surface.get(export.url)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["content-length"] == str(len(CONTENT))
    assert whole.headers["content-type"] == "text/csv; charset=utf-8"
    assert whole.headers["content-disposition"].startswith(f'attachment; filename="customers-{export.run_id}.csv"')
    assert whole.headers["cache-control"].startswith("private, no-store")
    assert whole.headers["etag"] == export.link["etag"]
    assert whole.headers["x-content-type-options"] == "nosniff"
    size, tag = len(CONTENT), whole.headers["etag"]

    def part(given_range: str, **headers: str) -> tuple[int, bytes, str | None]:
        answer = surface.get(export.url, headers={"Range": given_range, **headers})
        return answer.status_code, answer.content, answer.headers.get("content-range")

    assert part("bytes=0-9") == (206, CONTENT[:10], f"bytes 0-9/{size}")
    assert part(f"bytes={size - 5}-") == (206, CONTENT[-5:], f"bytes {size - 5}-{size - 1}/{size}")
    assert part("bytes=-7") == (206, CONTENT[-7:], f"bytes {size - 7}-{size - 1}/{size}")
    assert part(f"bytes=10-{size * 9}")[1] == CONTENT[10:]
    assert part("bytes=5-6", **{"If-Range": tag})[1] == CONTENT[5:7]
    assert part("bytes=5-6", **{"If-Range": '"other"'})[:2] == (200, CONTENT)
    for outside in (f"bytes={size}-", "bytes=-0", f"bytes={10**30}-"):
        assert part(outside) == (416, b"", f"bytes */{size}")
    for senseless in ("bytes=", "bytes=9-3", "lines=0-1", "bytes=0-1,5-6", "bytes=a-b"):
        assert part(senseless)[:2] == (200, CONTENT)
    unchanged = surface.get(export.url, headers={"If-None-Match": f'"x", W/{tag}'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert surface.get(export.url, headers={"If-Match": '"x"'}).status_code == 412
    head = surface.request("HEAD", export.url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(size))
    downloads = [each for each in entries(surface.store) if each.action == "export.download"]
    assert len(downloads) >= 2
    assert all(each.run_id == export.run_id for each in downloads)


def test_a_link_is_good_for_one_file_one_run_and_a_while(given: Given) -> None:
    """Whatever is changed of it, whoever's it was: it opens nothing else, nothing later."""
    surface, settings = given
    export = downloadable(given)
    grant = export.url.partition("grant=")[2]
    base = export.url.partition("?")[0]
    for place in range(len(grant)):
        changed = grant[:place] + ("A" if grant[place] != "A" else "B") + grant[place + 1 :]
        assert surface.get(f"{base}?grant={changed}").status_code in {403, 422}, place
    other = started(surface, source="customers")["run_id"]
    assert surface.get(f"/api/v1/exports/{other}/file?grant={grant}").status_code == 403
    key = link_key(Path(settings.key_file))
    mine = grant_of(key, grant, surface.clock.now().timestamp())
    assert mine is not None
    assert grant_of(key, grant, mine.valid_until) is None
    assert grant_of(b"x" * 32, grant, 0) is None
    late = signed(key, Grant(mine.run_id, int(surface.clock.now().timestamp()) - 1, mine.token_id, mine.file_version))
    assert surface.get(f"{base}?grant={late}").status_code == 403
    tokens.revoke(surface.store, "the-operator")
    assert surface.get(export.url).status_code == 403


def test_nothing_but_the_exported_file_is_served(given: Given, tmp_path: Path) -> None:
    """A link of either sort, another file, a folder, a pipe in its place: each is refused, and none is read."""
    surface, _ = given
    export = downloadable(given)
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    kept = export.path.with_name("kept")

    def refused(what: str) -> None:
        answer = surface.get(export.url)
        assert answer.status_code == 410, what
        assert str(tmp_path) not in answer.text
        assert surface.get(f"/api/v1/exports/{export.run_id}", as_="operator").json()["download"] is None

    export.path.rename(kept)
    refused("nothing")
    export.path.symlink_to(secret)
    refused("a symbolic link")
    export.path.unlink()
    export.path.symlink_to(kept)
    refused("a symbolic link to the file itself")
    export.path.unlink()
    export.path.hardlink_to(secret)
    refused("a hard link")
    export.path.unlink()
    export.path.mkdir()
    refused("a folder")
    export.path.rmdir()
    os.mkfifo(export.path)
    refused("a pipe")
    export.path.unlink()
    export.path.write_bytes(CONTENT)
    refused("another file of the same content")
    export.path.unlink()
    kept.rename(export.path)
    assert surface.get(export.url).content == CONTENT
    with export.path.open("ab") as file:
        file.write(b"more")
    refused("the file, changed")


@pytest.mark.parametrize(
    "path",
    ["{tmp}/secret", "{exports}/../secret", "/etc/passwd", "secret", "{exports}/", ""],
)
def test_a_path_in_a_row_is_not_believed(given: Given, tmp_path: Path, path: str) -> None:
    """Whoever can write a run's result still gets no file that is not an export's."""
    surface, settings = given
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    run_id = started(surface, source="customers", format="csv")["run_id"]
    written = path.format(tmp=tmp_path, exports=settings.folder)
    target = Path(written) if written and Path(written).is_file() else secret
    end(surface, run_id, {"path": written, "version": version_of(target.stat())})
    assert surface.get(f"/api/v1/exports/{run_id}", as_="operator").json()["download"] is None
    key = link_key(Path(settings.key_file))
    until = int(surface.clock.now().timestamp()) + 60
    token_id = tokens.listed(surface.store)[-1].id
    grant = signed(key, Grant(run_id, until, token_id, version_of(target.stat())))
    assert surface.get(f"/api/v1/exports/{run_id}/file?grant={grant}").status_code in {403, 410}


@pytest.mark.parametrize(
    "changed",
    [{"query": "SELECT 1", "table": None}, {"where": None}, {"columns": ["password"]}, {"columns": []}],
)
def test_a_run_that_was_queued_another_way_is_no_export(given: Given, changed: JsonObject) -> None:
    """Whoever queues a csv_export with a query of their own gets no link to what it wrote."""
    surface, settings = given
    run_id = started(surface, source="customers", format="csv")["run_id"]
    params = {**run_row(surface.store, run_id)["params"], **changed}
    with surface.store.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(params=params))
    finished(surface, run_id, Path(settings.file_of("customers", run_id, "csv")))
    assert surface.get(f"/api/v1/exports/{run_id}", as_="operator").status_code == 404


def test_a_jobs_own_file_is_served_and_no_other_of_its_folder(given: Given, tmp_path: Path) -> None:
    """By the shape of the name that the config gives it; a run that was given another query or path is none."""
    surface, _ = given
    run_id = started(surface, job="users")["run_id"]
    path = finished(surface, run_id, tmp_path / "out" / "users-2026-03-01.csv")
    shown = surface.get(f"/api/v1/exports/{run_id}", as_="operator").json()
    assert surface.get(shown["download"]["url"]).content == CONTENT
    finished(surface, run_id, path.with_name("users-2026-03-01.csv.key"))
    assert surface.get(f"/api/v1/exports/{run_id}", as_="operator").json()["download"] is None
    other = add_run(surface.store, "succeeded", "users", kind="csv_export", params={**JOB_PARAMS, "query": "SELECT 1"})
    assert surface.get(f"/api/v1/exports/{other}", as_="operator").status_code == 404


def test_old_files_go_and_nothing_else(tmp_path: Path) -> None:
    """Files and parts of sources by age; strangers, folders and what links point to stay."""
    (tmp_path / "exports").mkdir()
    folder = tmp_path / "exports"
    victim = tmp_path / "victim"
    old = ["customers-1.csv.gz", "a-2.xlsx", ".customers-3.csv.0123456789ab.part", ".a-4.csv.run-4.part"]
    kept = ["customers.csv", "notes-1.txt", "customers-1.csv.key", "..part", "README"]
    for name in (*old, *kept, "../victim", "new-9.csv"):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (1, 1))
    os.utime(folder / "new-9.csv")
    (folder / "link-5.csv").symlink_to(victim)
    os.utime(folder / "link-5.csv", (1, 1), follow_symlinks=False)
    (folder / "folder-6.csv").mkdir()
    os.utime(folder / "folder-6.csv", (1, 1))
    now = SystemClock().now()
    removed = remove_old(str(folder), timedelta(days=1), now)
    assert sorted(removed) == sorted([*old, "link-5.csv"])
    assert victim.read_bytes() == b"x"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*kept, "new-9.csv", "folder-6.csv"])
    assert remove_old(str(tmp_path / "none"), timedelta(days=1), now) == ()


def test_the_key_is_made_once_and_nobody_else_reads_it(tmp_path: Path) -> None:
    """However many ask for it first."""
    path = tmp_path / "state" / "links.key"
    key = link_key(path)
    assert (len(key), link_key(path), path.stat().st_mode & 0o777) == (32, key, 0o600)
    assert [each.name for each in path.parent.iterdir()] == ["links.key"]
    path.write_bytes(b"short")
    with pytest.raises(OSError, match="is no key"):
        link_key(path)


def test_the_list_of_exports_reads_an_index_of_its_own(given_on_both: Given) -> None:
    """However many other runs there are."""
    surface, _ = given_on_both
    first = started(surface, source="customers")["run_id"]
    second = started(surface, job="users")["run_id"]
    add_run(surface.store, "succeeded", None)
    page = surface.get("/api/v1/exports?limit=1", as_="viewer").json()
    assert ([each["run_id"] for each in page["exports"]], page["next"]) == ([second], second)
    rest = surface.get(f"/api/v1/exports?before={second}", as_="viewer").json()
    assert ([each["run_id"] for each in rest["exports"]], rest["next"]) == ([first], None)
    if surface.store.dialect.name == "sqlite":
        with statements(surface.store) as seen:
            exports.newest_exports(surface.store, ["users"], 5)
        assert any("batchd_runs_exports" in step for step in plan_of(surface.store, *seen[0]))
    offers = surface.get("/api/v1/exports/offers", as_="viewer").json()
    assert offers["jobs"] == ["users"]
    assert offers["sources"][0]["filters"] == ["country"]


def test_the_same_request_twice_is_one_export(given: Given) -> None:
    """With an Idempotency-Key; a client that got no answer may ask again."""
    surface, _ = given
    answers = [
        surface.post(
            "/api/v1/exports", as_="operator", json={"source": "customers"}, headers={"Idempotency-Key": "once"}
        ).json()["run_id"]
        for _ in range(2)
    ]
    assert answers[0] == answers[1]


def test_without_the_section_nothing_is_offered(surface: Surface) -> None:
    """And nothing else of it answers."""
    assert surface.get("/api/v1/exports/offers", as_="viewer").json() == {"jobs": [], "sources": []}
    assert surface.get("/api/v1/exports", as_="viewer").json() == {"exports": [], "next": None}
    assert surface.post("/api/v1/exports", as_="operator", json={"source": "x"}).status_code == 404
    assert surface.get("/api/v1/exports/1/file?grant=x").status_code == 404
