"""`batchd check --connect` asks the databases for what the jobs need, and says where the config asks for it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from batchd.errors import ExitCode
from tests.support.daemon import batchd, write_config
from tests.support.databases import open_database

_CLEANUP = {"kind": "cleanup", "database": "app", "table": "logs", "column": "created_at", "older_than": "30d"}


def checked(folder: Path, url: str, job: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the problems of a config with that one job."""
    config = write_config(folder, {"databases": {"app": {"url": url}}, "jobs": {"clean": job}})
    done = batchd(config, "check", "--connect", "--json")
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)["problems"]


def test_tables_are_looked_at_and_left_alone(database_url: str, tmp_path: Path) -> None:
    """A job that fits its table passes; a wrong table, column or condition is told with job and line."""
    with contextlib.closing(open_database(database_url)) as app:
        with app.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE logs (id integer PRIMARY KEY, created_at timestamp)")
            connection.exec_driver_sql("INSERT INTO logs VALUES (1, '2001-01-01 00:00:00')")
        assert checked(tmp_path, database_url, _CLEANUP) == (ExitCode.OK, [])
        for wrong, expected in (
            ({"table": "log"}, "there is no table log; did you mean"),
            ({"column": "create_at"}, "create_at"),
            ({"where": "level = 'debug'"}, "level"),
        ):
            code, problems = checked(tmp_path, database_url, _CLEANUP | wrong)
            assert code == ExitCode.CONFIG_INVALID
            (problem,) = problems
            assert problem["section"] == "jobs.clean"
            assert problem["line"] is not None
            assert expected in problem["message"]
        with app.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM logs").scalar_one() == 1


def test_a_database_that_does_not_answer_is_told_once(tmp_path: Path) -> None:
    """Its jobs are not blamed for it."""
    code, problems = checked(tmp_path, f"sqlite:///{tmp_path}/missing.db", _CLEANUP)
    assert (code, problems) == (ExitCode.STORE_UNREACHABLE, [])
