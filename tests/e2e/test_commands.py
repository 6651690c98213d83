"""Commands under a real daemon: however it ends, no process of a run goes on unseen."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchd.domain.run import CreatedBy, RunState
from batchd.errors import ExitCode
from batchd.store import control
from batchd.store.queries import RunView, find_run
from tests.support.app_table import opened
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.waiting import wait_until

# "$$$$" is "$$" in a config, where "$$" is a plain dollar.
_BUSY = "echo $$$$ >> {name}; setsid sh -c 'echo $$$$ >> {name}; while :; do sleep 0.1; done' & wait"


def make_config(folder: Path, **jobs: dict[str, Any]) -> tuple[Path, str]:
    """A config of commands, and the URL of its store."""
    store = f"sqlite:///{folder}/batchd.db"
    full = {name: {"kind": "command", "shell": True, "cwd": str(folder), **job} for name, job in jobs.items()}
    daemon = {"shutdown_grace": "1s", "state": str(folder)}
    return write_config(folder, {"daemon": daemon, "store": {"url": store}, "jobs": full}), store


def trigger(store: str, job: str) -> int:
    """Queue a run of the job and return its id."""
    with opened(store) as database:
        return control.trigger(database, job, {}, created_by=CreatedBy.CLI)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_of(file: Path, count: int) -> list[int]:
    """The process ids in the file, once there are so many."""

    def found() -> list[int]:
        pids = [int(pid) for pid in file.read_text().split()] if file.exists() else []
        return pids if len(pids) >= count else []

    return wait_until(found, seconds=30, what=f"{count} pids in {file}")


def run_of(store: str, run_id: int, reached: Callable[[RunView], bool]) -> RunView:
    """The run once it is as it should be."""
    with opened(store) as database:

        def holds() -> RunView | None:
            run = find_run(database, run_id)
            return run if run is not None and reached(run) else None

        found = wait_until(holds, seconds=60, what=f"run {run_id}")
        assert found is not None
        return found


def test_a_daemon_that_stops_leaves_no_command_behind(tmp_path: Path) -> None:
    """Those that listen to SIGTERM or not, even with more grace than the daemon has, and what left the group."""
    jobs = {
        "busy": {"command": _BUSY.format(name="busy")},
        "stubborn": {"command": "trap '' TERM; echo $$$$ >> stubborn; while :; do sleep 0.1; done", "grace": "500ms"},
        "deaf": {"command": "trap '' TERM; echo $$$$ >> deaf; while :; do sleep 0.1; done", "grace": "10m"},
    }
    config, store = make_config(tmp_path, **jobs)
    with Daemon(config) as daemon:
        daemon.ready()
        runs = [trigger(store, job) for job in jobs]
        pids = pids_of(tmp_path / "busy", 2) + pids_of(tmp_path / "stubborn", 1) + pids_of(tmp_path / "deaf", 1)
        assert all(is_alive(pid) for pid in pids)
        daemon.stop()
        wait_until(lambda: not [pid for pid in pids if is_alive(pid)], seconds=5, what="the commands' end")
    for run_id in runs:
        assert run_of(store, run_id, lambda run: run.state == RunState.QUEUED.value).attempt == 0


def test_a_daemon_that_is_killed_takes_its_commands_along(tmp_path: Path) -> None:
    """Without a word from the daemon, and within moments; the next daemon runs them again."""
    config, store = make_config(tmp_path, busy={"command": _BUSY.format(name="busy"), "grace": "10m"})
    with Daemon(config) as daemon:
        daemon.ready()
        run_id = trigger(store, "busy")
        pids = pids_of(tmp_path / "busy", 2)
        daemon.signal(signal.SIGKILL)
        wait_until(lambda: not [pid for pid in pids if is_alive(pid)], seconds=10, what="the commands' end")
    with Daemon(config) as daemon:
        daemon.ready()
        again = pids_of(tmp_path / "busy", 4)[2:]
        assert run_of(store, run_id, lambda run: run.state == RunState.RUNNING.value)
        assert daemon.stop() == ExitCode.OK
        assert not [pid for pid in again if is_alive(pid)]


def test_a_timeout_and_a_cancel_end_the_command(tmp_path: Path) -> None:
    """The run says which it was, and its processes are gone by then."""
    slow = {"command": "echo $$$$ >> slow; echo working; sleep 300", "timeout": "1s", "retry": {"max_attempts": 1}}
    config, store = make_config(tmp_path, slow=slow, busy={"command": _BUSY.format(name="busy")})
    with Daemon(config) as daemon:
        daemon.ready()
        slow_run, busy_run = trigger(store, "slow"), trigger(store, "busy")
        busy = pids_of(tmp_path / "busy", 2)
        assert batchd(config, "cancel", str(busy_run)).returncode == ExitCode.OK
        run_of(store, busy_run, lambda run: run.state == RunState.CANCELLED.value)
        assert not [pid for pid in busy if is_alive(pid)]
        failed = run_of(store, slow_run, lambda run: run.state == RunState.FAILED.value)
        assert failed.reason == "timeout"
        assert not [pid for pid in pids_of(tmp_path / "slow", 1) if is_alive(pid)]
        assert daemon.stop() == ExitCode.OK


def test_a_secret_that_a_command_prints_is_masked(tmp_path: Path) -> None:
    """In the log, in the run's lines, in its result and in its error; the stored params have none."""
    job = {
        "command": "echo stdout $TOKEN; echo stderr $TOKEN >&2; exit 3",
        "env": {"TOKEN": "${MY_TOKEN}"},
        "retry": {"max_attempts": 1},
    }
    config, _ = make_config(tmp_path, leaky=job)
    hidden = "hunter2-and-more"
    with Daemon(config, environment={"MY_TOKEN": hidden}) as daemon:
        daemon.ready()
        done = batchd(config, "trigger", "leaky", "--wait", environment={"MY_TOKEN": hidden})
        daemon.wait_for_event("command.output", stream="stderr")
        shown = batchd(config, "show", "1", environment={"MY_TOKEN": hidden})
        assert daemon.stop() == ExitCode.OK
        assert "stdout ***" in daemon.output
        assert "stderr ***" in shown.stdout
        for said in (daemon.output, done.stdout, done.stderr, shown.stdout):
            assert hidden not in said
    assert hidden.encode() not in (tmp_path / "batchd.db").read_bytes()


def test_check_and_the_daemon_tell_of_a_program_that_is_missing(tmp_path: Path) -> None:
    """`batchd check` with the line; the daemon starts all the same, since other jobs are well."""
    (tmp_path / "tools").mkdir()
    mine = tmp_path / "tools" / "mine.sh"
    mine.write_text("#!/bin/sh\necho hello\n")
    mine.chmod(0o755)
    jobs = {
        "missing": {"shell": False, "command": ["no-such-program"]},
        "mine": {"shell": False, "command": ["tools/mine.sh"]},
    }
    config, _ = make_config(tmp_path, **jobs)
    done = batchd(config, "check")
    assert done.returncode == ExitCode.CONFIG_INVALID
    assert "there is no program 'no-such-program'" in done.stdout + done.stderr
    assert "mine" not in (done.stdout + done.stderr).replace("command", "").replace(str(tmp_path), "")
    with Daemon(config) as daemon:
        daemon.ready()
        assert daemon.events("target.invalid", job="missing")
        assert batchd(config, "trigger", "mine", "--wait").returncode == ExitCode.OK
        assert batchd(config, "trigger", "missing", "--wait").returncode == ExitCode.RUN_FAILED
        assert daemon.stop() == ExitCode.OK
