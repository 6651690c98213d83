"""`batchd export` writes a file without a daemon, and tells what it did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchd.errors import ExitCode
from tests.support.app_table import opened
from tests.support.cleaning import execute
from tests.support.daemon import batchd, write_config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config with a database of 200 users."""
    url = f"sqlite:///{tmp_path / 'app.db'}"
    with opened(url) as app:
        execute(app, "CREATE TABLE users (id integer PRIMARY KEY, name text)")
        execute(app, *(f"INSERT INTO users VALUES ({n}, '=u{n}')" for n in range(1, 201)))
    sections = {"databases": {"app": {"url": url}}, "jobs": {"noop": {"kind": "noop"}}}
    return write_config(tmp_path, sections)


def test_a_table_becomes_a_file(config: Path) -> None:
    """The file's name says the format; the ledger tells of the run, where there is one."""
    assert batchd(config, "migrate").returncode == ExitCode.OK
    done = batchd(config, "export", "out/users.csv", "-d", "app", "-t", "users", "--escape-formulas", "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    said = json.loads(done.stdout)
    assert said["result"]["rows"] == 200
    lines = (config.parent / "out" / "users.csv").read_text().splitlines()
    assert (len(lines), lines[1]) == (201, "1,'=u1")
    shown = json.loads(batchd(config, "show", str(said["run_id"]), "--json").stdout)
    assert (shown["run"]["kind"], shown["run"]["state"]) == ("csv_export", "succeeded")


def test_columns_and_conditions_are_told(config: Path) -> None:
    """Without a ledger too; a person is told path, rows and rate."""
    done = batchd(
        config, "export", "a.ndjson", "-d", "app", "-t", "users", "-m", "id", "-w", "id > 198", "-p", 'key=["id"]'
    )
    assert done.returncode == ExitCode.OK, done.stderr
    assert "rows/s" in done.stdout
    assert (config.parent / "a.ndjson").read_text() == '{"id": 199}\n{"id": 200}\n'


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("a.csv", "-d", "app", "-t", "usres"), ExitCode.RUN_FAILED, "did you mean users"),
        (("a.txt", "-d", "app", "-t", "users"), ExitCode.USAGE, "must end in one of"),
        (("a.csv", "-d", "app"), ExitCode.USAGE, "exactly one of"),
        (("a.csv", "-d", "ap", "-t", "users"), ExitCode.USAGE, "no [databases.ap]"),
        (("a.csv", "-d", "app", "-t", "users", "-p", "resumable=true"), ExitCode.USAGE, "is for a job"),
    ],
)
def test_what_is_wrong_is_told_in_one_message(
    config: Path, arguments: tuple[str, ...], code: ExitCode, said: str
) -> None:
    """With the exit code for it, and no file."""
    done = batchd(config, "export", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (config.parent / "a.csv").exists()
