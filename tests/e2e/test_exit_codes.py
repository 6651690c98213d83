"""Every exit code that docs/cli.md promises, from the command that gives it.

1, 69 and 75 are in test_lifecycle and test_refusals, 130 in test_cli.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import update

from batchd.cli import inspect as _inspect  # noqa: F401 (without root nothing of the interpreter can be read)
from batchd.cli.main import main
from batchd.cli.reference import render
from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.errors import ExitCode
from batchd.store.migrate import migrate
from batchd.store.schema import meta, runs
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.databases import open_database
from tests.support.rights import without_root
from tests.support.store_reading import wait_for_state
from tests.support.store_rows import add_run, add_schedule
from tests.support.waiting import wait_until

_ONE_TRY = {"retry": {"max_attempts": 1}}


@contextlib.contextmanager
def store_in(folder: Path) -> Iterator[Database]:
    """The store that a config in the folder has by default."""
    with contextlib.closing(open_database(f"sqlite:///{folder}/batchd.db")) as store:
        yield store


def test_the_table_in_the_docs_has_every_code() -> None:
    """Its number, its name and a meaning."""
    page = render()
    for code in ExitCode:
        assert f"| {int(code)} | `{code.name.lower()}` | " in page


def test_waiting_for_a_run_tells_how_it_ended(tmp_path: Path) -> None:
    """0 succeeded, 10 failed, 11 timed out, and the same as JSON."""
    jobs = {
        "good": {"kind": "noop"},
        "bad": {"kind": "fail", **_ONE_TRY},
        "slow": {"kind": "sleep", "time": "60s", "timeout": "200ms", **_ONE_TRY},
    }
    config = write_config(tmp_path, {"jobs": jobs})
    with Daemon(config) as daemon:
        daemon.ready()
        for job, code in (
            ("good", ExitCode.OK),
            ("bad", ExitCode.RUN_FAILED),
            ("slow", ExitCode.RUN_TIMED_OUT_OR_CANCELLED),
        ):
            done = batchd(config, "trigger", job, "--wait", "--json")
            assert done.returncode == code, done.stderr
            assert json.loads(done.stdout)["run"]["job"] == job
        assert daemon.stop() == ExitCode.OK


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (RunState.CANCELLED, ExitCode.RUN_TIMED_OUT_OR_CANCELLED),
        (RunState.SKIPPED, ExitCode.RUN_SKIPPED),
        (RunState.MISSED, ExitCode.RUN_SKIPPED),
        (RunState.QUARANTINED, ExitCode.RUN_FAILED),
    ],
)
def test_waiting_for_a_run_that_never_ran(tmp_path: Path, state: RunState, code: ExitCode) -> None:
    """11 cancelled, 12 skipped or missed, 10 quarantined, whoever did that to it meanwhile."""
    config = write_config(tmp_path, {"jobs": {"good": {"kind": "noop"}}})
    with store_in(tmp_path) as store, ThreadPoolExecutor(1) as thread:
        migrate(store)
        add_schedule(store, "good", kind="noop", params={})
        run_id = add_run(store, "failed", job="good", kind="noop")
        waiting = thread.submit(batchd, config, "retry", str(run_id), "--wait")
        wait_for_state(store, run_id, RunState.QUEUED)
        with store.writing() as connection:
            ended = {"state": state.value, "finished_at": store.dialect.now()}
            connection.execute(update(runs).where(runs.c.id == run_id).values(ended))
        done = waiting.result()
    assert done.returncode == code, done.stderr
    assert state.value in done.stdout


def test_a_dead_part_ends_the_daemon(tmp_path: Path) -> None:
    """70, loudly: half a daemon is worse than one that its supervisor starts again."""
    config = write_config(tmp_path, {"jobs": {"end": {"kind": "end_a_loop"}}})
    with Daemon(config) as daemon, store_in(tmp_path) as store:
        daemon.ready()
        batchd(config, "trigger", "end")
        wait_until(lambda: daemon.code is not None, seconds=20, what="the end")
        assert daemon.wait() == ExitCode.INTERNAL
        assert "line-writer" in daemon.events("service.failed")[0]["reason"]
        wait_for_state(store, 1, RunState.SUCCEEDED, RunState.QUEUED)


def test_a_state_that_cannot_be_made(tmp_path: Path) -> None:
    """73, with the folder and what to do."""
    config = write_config(tmp_path, {"daemon": {"state": "/dev/null/var"}, "jobs": {"a": {"kind": "noop"}}})
    for command in ("run", "migrate"):
        done = batchd(config, command)
        assert done.returncode == ExitCode.CANNOT_CREATE
        assert "/dev/null/var" in done.stderr
        assert "hint: set [" in done.stderr


def test_a_store_without_tables_and_a_newer_one(tmp_path: Path) -> None:
    """76, for a command and for the daemon; a newer store is left alone."""
    config = write_config(tmp_path, {"jobs": {"a": {"kind": "noop"}}})
    assert batchd(config, "jobs").returncode == ExitCode.SCHEMA_MISMATCH
    with store_in(tmp_path) as store:
        migrate(store)
        with store.writing() as connection:
            connection.execute(update(meta).where(meta.c.key == "schema_version").values(value="9999"))
        for command in ("jobs", "run"):
            done = batchd(config, command)
            assert done.returncode == ExitCode.SCHEMA_MISMATCH
            assert "9999" in done.stderr


def test_a_config_that_may_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """77, for the config itself and for a file that it names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # pytest's own folders are closed to everybody else
        (folder / "secret").touch(mode=0o000)
        config = folder / "config.toml"
        config.write_text('[store]\nurl_file = "secret"\n')
        assert main(["check", "--config", str(config)]) in {ExitCode.CONFIG_INVALID, ExitCode.NO_PERMISSION}
        with without_root():
            assert main(["check", "--config", str(config)]) == ExitCode.NO_PERMISSION
        assert "secret may not be read by this user" in capsys.readouterr().out
        config.chmod(0o000)
        with without_root():
            assert main(["jobs", "--config", str(config)]) == ExitCode.NO_PERMISSION
        assert "may not be read by this user" in capsys.readouterr().err


def test_a_config_that_is_wrong_or_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """78, for every command that needs one."""
    config = tmp_path / "config.toml"
    for content in (None, b"[daemn]\n", b"\xff\xfe"):
        if content is not None:
            config.write_bytes(content)
        for command in (["check"], ["run"], ["jobs"], ["next"], ["migrate"], ["demo"], ["show", "1"]):
            assert main([*command, "--config", str(config)]) == ExitCode.CONFIG_INVALID
            said = capsys.readouterr()
            assert "config.toml" in said.out + said.err
