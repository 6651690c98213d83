"""A team's own functions: where they are found, and what `batchd check` and the daemon say of those that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchd.errors import ExitCode
from tests.support.app_table import opened
from tests.support.cleaning import execute, fetch
from tests.support.daemon import Daemon, batchd, write_config

_JOB = {"kind": "each_row", "database": "app", "table": "people", "target": "shop_jobs:count"}
_CODE = """
from sqlalchemy import text

def count(rows, connection):
    connection.execute(text("UPDATE people SET seen = seen + 1 WHERE id = :id"), rows)
    if rows[0]["id"] == 2:
        hidden = secret_of(rows)

def secret_of(rows):
    raise LookupError("nobody knows Bob")
"""


def make_config(folder: Path, job: dict[str, Any], *others: dict[str, Any], **daemon: Any) -> Path:
    """A config with the job `count`, others named `job-0` and so on, and a database with three people."""
    url = f"sqlite:///{folder / 'app.db'}"
    with opened(url) as app:
        execute(app, "CREATE TABLE IF NOT EXISTS people (id integer PRIMARY KEY, seen integer DEFAULT 0)")
        execute(app, "INSERT OR IGNORE INTO people (id) VALUES (1), (2), (3)")
    named = {f"job-{number}": other for number, other in enumerate(others)}
    daemon = {"shutdown_grace": "5s", "state": str(folder), **daemon}
    return write_config(folder, {"daemon": daemon, "databases": {"app": {"url": url}}, "jobs": {"count": job} | named})


def problems(config: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of `batchd check` and the problems that it tells."""
    done = batchd(config, "check", "--json", *arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)["problems"]


def test_functions_are_found_beside_the_config_and_in_named_folders(tmp_path: Path) -> None:
    """The config's folder when nothing is said, else the folders that are named, relative to it."""
    (tmp_path / "shop_jobs.py").write_text(_CODE)
    assert problems(make_config(tmp_path, _JOB)) == (ExitCode.OK, [])
    (tmp_path / "lib").mkdir()
    (tmp_path / "shop_jobs.py").rename(tmp_path / "lib" / "shop_jobs.py")
    assert problems(make_config(tmp_path, _JOB, import_path=["lib"])) == (ExitCode.OK, [])
    code, (problem,) = problems(make_config(tmp_path, _JOB))
    assert code == ExitCode.CONFIG_INVALID
    assert "there is no module shop_jobs" in problem["message"]
    assert "import_path" in problem["message"]
    assert problem["section"] == "jobs.count"
    assert problem["line"]


def test_a_file_in_the_import_path_takes_no_librarys_place(tmp_path: Path) -> None:
    """A `tomllib.py` in a folder of the import path breaks nothing: what is installed comes first."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "tomllib.py").write_text("raise RuntimeError('imported by mistake')")
    (tmp_path / "lib" / "shop_jobs.py").write_text("import tomllib\n" + _CODE)
    assert problems(make_config(tmp_path, _JOB, import_path=["lib"])) == (ExitCode.OK, [])


def test_check_connect_looks_at_the_rows(tmp_path: Path) -> None:
    """A wrong table, key or condition, and a pool that is too small, are told with job and line."""
    (tmp_path / "shop_jobs.py").write_text(_CODE)
    for change, said in (
        ({"table": "peple"}, "no table peple; did you mean people"),
        ({"key": ["idd"]}, "no column idd"),
        ({"where": "idd = 1"}, "not a condition"),
        ({"parallel": 9}, "needs 10 connections"),
    ):
        code, (problem,) = problems(make_config(tmp_path, _JOB | change), "--connect")
        assert code == ExitCode.CONFIG_INVALID
        assert said in problem["message"]
        assert problem["section"] == "jobs.count"


def test_a_daemon_tells_and_goes_on(tmp_path: Path) -> None:
    """What is wrong is told at the start and by each run that fails; a module that is there now is found at once."""
    config = make_config(tmp_path, _JOB | {"retry": {"max_attempts": 1}, "batch_size": 1})
    with Daemon(config) as daemon:
        told = daemon.wait_for_event("target.invalid", job="count")
        assert "no module shop_jobs" in told["reason"]
        daemon.ready()
        failed = batchd(config, "trigger", "count", "--wait")
        assert failed.returncode == ExitCode.RUN_FAILED
        assert "no module shop_jobs" in batchd(config, "show", "1").stdout
        (tmp_path / "shop_jobs.py").write_text(_CODE)
        failed = batchd(config, "trigger", "count", "--wait")
        assert failed.returncode == ExitCode.RUN_FAILED
        shown = batchd(config, "show", "2").stdout
        assert "job count: shop_jobs:count failed on table people, id=2: LookupError: nobody knows Bob" in shown
        assert "in secret_of" in shown
        assert daemon.stop() == ExitCode.OK
    with opened(f"sqlite:///{tmp_path / 'app.db'}") as app:
        assert fetch(app, "SELECT seen FROM people ORDER BY id") == [1, 0, 0]


def test_what_a_fan_out_queues_is_checked(tmp_path: Path) -> None:
    """No such job, kind, queue, parameter or place, itself, or a secret: each is told with its key."""
    (tmp_path / "shop_jobs.py").write_text(_CODE)
    fan = {"kind": "fan_out", "database": "app", "table": "people"}
    noop = {"kind": "noop"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"enqueue": {"job": "cuont"}}, "there is no [jobs.cuont]; did you mean 'count'?"),
        ({"enqueue": {"job": "job-1"}}, "is the job itself"),
        ({"enqueue": {"kind": "nop"}}, "there is no kind 'nop'"),
        ({"enqueue": {"kind": "noop", "queue": "mial"}}, "there is no [queues.mial]"),
        ({"enqueue": {"kind": "noop", "params": {"x": 1}}}, "is no parameter of kind 'noop'"),
        ({"enqueue": {"kind": "append"}}, "kind 'append' needs database"),
        ({"enqueue": {"kind": "noop", "params": {"x": "{id"}}}, "has a single {"),
        ({"enqueue": {}}, "set exactly one of `job` and `kind`"),
        ({"enqueue": noop, "on_complete": {"kind": "sleep", "params": {"time": "{id}"}}}, "has a place {id}"),
        ({"enqueue": noop, "query": "SELECT 1"}, "set exactly one of `table` and `query`"),
        ({"enqueue": {"kind": "sleep", "params": {"token": "${PATH}"}}}, "would be stored with each run"),
    ]
    config = make_config(tmp_path, _JOB, *(fan | change for change, _ in cases))
    done = batchd(config, "check")
    assert done.returncode == ExitCode.CONFIG_INVALID
    for number, (change, said) in enumerate(cases):
        lines = [line for line in done.stdout.splitlines() if f"[jobs.job-{number}]" in line]
        assert any(said in line for line in lines), (change, lines)
    place = {"enqueue": {"kind": "sleep", "params": {"time": "{idd}s"}}}
    code, (problem,) = problems(make_config(tmp_path, _JOB, fan | place), "--connect")
    assert (code, problem["section"]) == (ExitCode.CONFIG_INVALID, "jobs.job-0")
    assert "place {idd}, but table people has no such column" in problem["message"]
