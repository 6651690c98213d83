"""`batchd import` as a real process, with and without a store."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path

import pytest

from batchd.errors import ExitCode
from batchd.store.migrate import migrate
from tests.support.cleaning import fetch
from tests.support.daemon import batchd, write_config
from tests.support.databases import open_database
from tests.support.importing import HEADER, lines, users_table
from tests.support.processes import RunningProcess, clean_environment, completed
from tests.support.waiting import wait_until


@pytest.fixture
def config(database_url: str, tmp_path: Path) -> Path:
    """A config with a table of users in "app", and a store that was never made."""
    with contextlib.closing(open_database(database_url)) as app:
        users_table(app)
    store = f"sqlite:///{tmp_path}/store.db"
    return write_config(tmp_path, {"store": {"url": store}, "databases": {"app": {"url": database_url}}})


def _count(database_url: str) -> int:
    with contextlib.closing(open_database(database_url)) as app:
        return int(fetch(app, "SELECT count(*) FROM users")[0])


def test_a_file_is_imported_without_a_daemon(config: Path, database_url: str, tmp_path: Path) -> None:
    """The result and the bad records are told; without a store nothing is written down, and none is made."""
    (tmp_path / "users.csv").write_text(HEADER + lines(range(50)) + "x@x,X,old,\n")
    done = batchd(config, "import", "users.csv", "--table", "users", "--database", "app")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "users.csv is utf-8" in done.stderr
    assert "inserted 50 " in " ".join(done.stdout.split())
    assert "column age" in done.stdout
    assert _count(database_url) == 50
    assert not (tmp_path / "store.db").exists()


def test_the_ledger_tells_of_it(config: Path, database_url: str, tmp_path: Path) -> None:
    """Where a store is, `runs` and `show` know the import, its result and its rejects, however it ended."""
    with contextlib.closing(open_database(f"sqlite:///{tmp_path}/store.db")) as store:
        migrate(store)
    (tmp_path / "users.csv").write_text(HEADER + lines(range(5)) + "x@x,X,old,\n" * 3)
    words = ("import", "users.csv", "--table", "users", "--database", "app", "--json")
    done = batchd(config, *words)
    assert done.returncode == ExitCode.OK, done.stderr
    run_id = json.loads(done.stdout)["run_id"]
    shown = json.loads(batchd(config, "show", str(run_id), "--json").stdout)
    assert (shown["run"]["state"], shown["run"]["kind"], shown["run"]["created_by"]) == (
        "succeeded",
        "csv_import",
        "cli",
    )
    assert [row["position"] for row in shown["rejects"]] == [7, 8, 9]
    assert "column age" in batchd(config, "show", str(run_id)).stdout
    failed = batchd(config, *words, "--max-rejects", "1")
    assert failed.returncode == ExitCode.RUN_FAILED
    assert "more than 1 bad records" in json.loads(failed.stderr)["error"]["message"]
    states = [run["state"] for run in json.loads(batchd(config, "runs", "--json").stdout)["runs"]]
    assert states == ["failed", "succeeded"]


def test_an_interrupted_import_goes_on_with_the_same_command(config: Path, database_url: str, tmp_path: Path) -> None:
    """Ctrl-C costs one chunk; the second time it says where it goes on, and no record is there twice."""
    (tmp_path / "users.csv").write_text(HEADER + lines(range(2_000)))
    words = ["import", "users.csv", "-t", "users", "-d", "app", "-p", "batch_size=20", "-p", "pause=5ms"]
    command = [sys.executable, "-m", "batchd", words[0], "--config", str(config), *words[1:]]
    with RunningProcess(command, folder=tmp_path) as process:
        wait_until(lambda: _count(database_url) > 100 or process.code is not None, seconds=30, what=process.output)
        process.signal(signal.SIGINT)
        assert process.wait() == ExitCode.INTERRUPTED, process.output
        assert "the same command goes on" in process.output
    assert 0 < _count(database_url) < 2_000
    done = batchd(config, *words)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "goes on from line" in done.stderr
    assert _count(database_url) == 2_000


def test_standard_input_is_a_file_like_any_other(config: Path, database_url: str, tmp_path: Path) -> None:
    """A pipe can be imported, with names for its fields."""
    words = ["import", "-", "-t", "users", "-d", "app", "-p", 'header=["email","age"]', "--computed", "born=now"]
    command = [sys.executable, "-m", "batchd", words[0], "--config", str(config), *words[1:]]
    done = completed(command, environment=clean_environment(), folder=tmp_path, given="a@x;1\nb@x;2\n")
    assert done.returncode == ExitCode.OK, done.stderr
    assert _count(database_url) == 2


def test_bad_usage_is_told_in_one_line(config: Path, tmp_path: Path) -> None:
    """An unknown database, a file that is not there, a parameter that makes no sense: no traceback."""
    (tmp_path / "users.csv").write_text(HEADER)
    for words, code, said in (
        (["users.csv", "-d", "ap"], ExitCode.USAGE, "no [databases.ap]"),
        (["nowhere.csv", "-d", "app"], ExitCode.RUN_FAILED, "No such file"),
        (["users.csv", "-d", "app", "--delimiter", "ab"], ExitCode.USAGE, "is no delimiter"),
        (["users.csv", "-d", "app", "-p", "dlimiter=;"], ExitCode.USAGE, "unknown key; did you mean 'delimiter'?"),
    ):
        done = batchd(config, "import", *words, "-t", "users")
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert said in done.stderr
