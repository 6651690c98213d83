"""`batchd exec` as cron runs it: the command is what it was without it, and the ledger knows of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from batchd.store import control, leases
from batchd.store.migrate import migrate
from batchd.store.queries import RunFilter, list_runs, run_detail
from batchd.store.schema import runs
from tests.e2e.conftest import Urls
from tests.support.app_table import opened
from tests.support.daemon import batchd, write_config
from tests.support.processes import RunningProcess, clean_environment
from tests.support.waiting import wait_until


@pytest.fixture
def config(tmp_path: Path, urls: Urls) -> Path:
    """A config whose store has its tables."""
    with opened(urls.store) as store:
        migrate(store)
    return write_config(tmp_path, {"store": {"url": urls.store}})


def _exec(config: Path, *command: str, options: Sequence[str] = (), **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "batchd", "exec", "-c", str(config), "-j", "backup", *options, "--", *command],
        env=clean_environment(),
        cwd=config.parent,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
        **{"capture_output": True, **more},
    )


def _run(urls: Urls) -> Any:
    with opened(urls.store) as store:
        (run,) = list_runs(store, RunFilter())
        return run_detail(store, run.id)


def test_output_and_exit_code_pass_through_and_are_recorded(config: Path, urls: Urls) -> None:
    """Byte by byte, each stream where it belongs; what was said on stderr last is in the error."""
    script = "printf 'one\\ntwo'; echo 'disk full' >&2; exit 3"
    done = _exec(config, "sh", "-c", script, options=["--meta", "host=db1"])
    assert (done.returncode, done.stdout, done.stderr) == (3, b"one\ntwo", b"disk full\n")
    found = _run(urls)
    assert (found.run.state, found.run.schedule_id, found.run.result) == ("failed", "backup", {"exit_code": 3})
    assert found.run.params == {"command": "sh", "host": "db1"}
    assert found.run.error == "sh ended with exit code 3: disk full"
    assert sorted((line.fields["stream"], line.message) for line in found.log_lines) == [
        ("stderr", "disk full"),
        ("stdout", "one"),
        ("stdout", "two"),
    ]


def test_a_dump_into_a_file_is_not_recorded(config: Path, urls: Urls, tmp_path: Path) -> None:
    """Neither what goes to a file with `>`, nor what is no text; both arrive whole."""
    with (tmp_path / "dump").open("wb") as file:
        assert _exec(config, "printf", "secret data", stdout=file, stderr=None, capture_output=False).returncode == 0
    assert (tmp_path / "dump").read_bytes() == b"secret data"
    assert _run(urls).log_lines == ()


def test_what_is_no_text_passes_untouched(config: Path, urls: Urls) -> None:
    """A megabyte with NUL bytes, into a pipe."""
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)"
    done = _exec(config, sys.executable, "-c", code)
    assert done.stdout == bytes(range(256)) * 4096
    assert len(_run(urls).log_lines) == 1


@pytest.mark.parametrize(
    ("command", "code"), [(["no-such-command"], 127), (["/etc"], 126), (["sh", "-c", "kill -TERM $$"], 143)]
)
def test_exit_codes_are_those_of_a_shell(config: Path, urls: Urls, command: list[str], code: int) -> None:
    """Not found, not executable, ended by a signal: each is a failed run."""
    assert _exec(config, *command).returncode == code
    assert (_run(urls).run.state, _run(urls).run.result) == ("failed", {"exit_code": code})


def test_a_failure_is_one_also_where_sigchld_is_ignored(config: Path, urls: Urls) -> None:
    """As whatever starts it may have left it: the kernel would then keep no exit codes."""
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)}
    assert _exec(config, "sh", "-c", "exit 3", **ignoring).returncode == 3
    assert _run(urls).run.state == "failed"


@pytest.mark.parametrize("broken", ["no config", "no store", "no tables"])
def test_the_command_runs_whatever_is_the_matter_with_batchd(tmp_path: Path, broken: str) -> None:
    """And its exit code passes; stderr says that nothing is recorded."""
    store = "postgresql://127.0.0.1:1/none" if broken == "no store" else f"sqlite:///{tmp_path}/empty.db"
    config = write_config(tmp_path, {"store": {"url": store}})
    if broken == "no config":
        config.write_text("this is no [TOML")
    done = _exec(config, "sh", "-c", "echo done; exit 7")
    assert (done.returncode, done.stdout) == (7, b"done\n")
    assert b"not recorded" in done.stderr
    assert not (tmp_path / "empty.db").exists()


def test_a_signal_reaches_the_command_and_all_that_it_started(config: Path, urls: Urls, tmp_path: Path) -> None:
    """SIGTERM to exec ends the whole pipeline; the run says so."""
    command = ["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"]
    with RunningProcess(
        [sys.executable, "-m", "batchd", "exec", "-c", str(config), "-j", "b", "--", *command]
    ) as process:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), seconds=30)
        child = int((tmp_path / "pid").read_text())
        process.signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    wait_until(lambda: _is_gone(child), seconds=10)
    assert _run(urls).run.error == "sh was ended by SIGTERM"


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_cancel_ends_the_command(config: Path, urls: Urls) -> None:
    """`batchd cancel` is heard with the next heartbeat."""
    with (
        RunningProcess(
            [sys.executable, "-m", "batchd", "exec", "-c", str(config), "-j", "b", "--", "sleep", "60"]
        ) as process,
        opened(urls.store) as store,
    ):
        wait_until(lambda: list_runs(store, RunFilter()), seconds=30)
        control.request_cancel(store, list_runs(store, RunFilter())[0].id)
        assert process.wait() == 128 + signal.SIGTERM
    assert _run(urls).run.state == "cancelled"


def test_a_killed_exec_is_found_out(config: Path, urls: Urls) -> None:
    """Its run stays `running` until its lease is over; then the reaper fails it, and nothing runs it again."""
    with (
        RunningProcess(
            [sys.executable, "-m", "batchd", "exec", "-c", str(config), "-j", "b", "--", "sleep", "60"]
        ) as process,
        opened(urls.store) as store,
    ):
        wait_until(lambda: list_runs(store, RunFilter()), seconds=30)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        (command,) = wait_until(lambda: children.read_text().split(), seconds=30)
        process.signal(signal.SIGKILL)
        process.wait()
        os.kill(int(command), signal.SIGKILL)  # it goes on without its reporter, as a backup should
        run_id = list_runs(store, RunFilter())[0].id
        assert leases.reap_expired(store, mine={}) == ()
        with store.writing() as connection:
            connection.execute(update(runs).values(lease_until=store.dialect.now_plus(-1)))
        assert leases.reap_expired(store, mine={}) == (run_id,)
    shown = json.loads(batchd(config, "show", str(run_id), "--json").stdout)
    assert (shown["run"]["state"], shown["run"]["reason"]) == ("failed", "lost")
