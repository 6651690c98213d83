"""Processes for isolated runs beside a real daemon: nothing of them outlives it, however it ends."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from batchd.domain.run import CreatedBy, RunState
from batchd.errors import ExitCode
from batchd.store import control
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config
from tests.support.processes import PROJECT
from tests.support.store_reading import detail_of, wait_for_state
from tests.support.waiting import wait_until


def is_there(pid: int) -> bool:
    """Whether a process runs: one that nobody has reaped yet does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def make_config(folder: Path, target: str, arguments: dict[str, Any]) -> Path:
    """A config with one isolated job."""
    job = {"kind": "python", "target": target, "arguments": arguments, "isolation": "process"}
    return write_config(
        folder,
        {
            "daemon": {"shutdown_grace": "1s", "state": str(folder), "import_path": [str(PROJECT)]},
            "store": {"url": f"sqlite:///{folder}/batchd.db"},
            "jobs": {"isolated": job},
        },
    )


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_no_process_outlives_the_daemon(tmp_path: Path, blow: signal.Signals) -> None:
    """A run that hangs in C with a child that ignores signals: both die with the daemon, and the run is given back."""
    pids = tmp_path / "pids"
    config = make_config(tmp_path, "tests.support.python_targets:hang_with_children", {"file": str(pids)})
    with Daemon(config) as daemon, opened(f"sqlite:///{tmp_path}/batchd.db") as store:
        daemon.ready(60)
        run_id = control.trigger(store, "isolated", {}, created_by=CreatedBy.CLI)
        wait_until(pids.exists, seconds=60, what=f"the child\n{daemon.output[-3000:]}")
        held = [int(word) for word in pids.read_text().split()]
        assert all(is_there(pid) for pid in held)
        code = daemon.stop(blow, seconds=60)
        assert code == (-signal.SIGKILL if blow == signal.SIGKILL else ExitCode.OK)
        wait_until(lambda: not any(is_there(pid) for pid in held), seconds=10, what=f"the end of {held}")
        if blow == signal.SIGTERM:
            ended = detail_of(store, run_id)
            assert (ended.run.state, ended.run.attempt) == (RunState.QUEUED, 0)
            assert [attempt.outcome for attempt in ended.attempts] == ["released"]


def test_what_a_run_prints_and_logs_stands_in_its_log(tmp_path: Path) -> None:
    """Lines of print, of the standard library's logging and of the context's log, each with the run's id."""
    config = make_config(tmp_path, "tests.support.python_targets:chatter", {"lines": 3})
    with Daemon(config) as daemon, opened(f"sqlite:///{tmp_path}/batchd.db") as store:
        daemon.ready(60)
        run_id = control.trigger(store, "isolated", {}, created_by=CreatedBy.CLI)
        assert wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=60)
        said = [record["msg"] for record in daemon.events("process.output", run_id=run_id)]
        assert said == ["line 0", "line 1", "line 2"]
        daemon.wait_for_event("library.message", run_id=run_id, logger="shop", text="careful", level="warning")
        assert [record["name"] for record in daemon.events("greeted", run_id=run_id)] == ["Ann"]
        assert daemon.stop() == ExitCode.OK
