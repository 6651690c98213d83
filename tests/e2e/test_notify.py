"""What a real daemon tells whoever supervises it, from the wait for its store to its stop."""

from __future__ import annotations

import signal
from pathlib import Path

from batchd.domain.run import CreatedBy, RunState
from batchd.errors import ExitCode
from batchd.store import control
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config
from tests.support.notify_socket import NotifySocket
from tests.support.store_reading import detail_of, wait_for_state
from tests.support.waiting import wait_until


def test_a_start_waits_for_its_store_within_a_bound(tmp_path: Path) -> None:
    """It says so, asks for more time, and ends with 69, which the unit starts again."""
    store = {"url": "postgresql://nobody@127.0.0.1:1/nothing", "wait_at_start": "1s"}
    config = write_config(tmp_path, {"store": store, "jobs": {"tick": {"kind": "noop"}}})
    with NotifySocket(tmp_path) as systemd, Daemon(config, environment={"NOTIFY_SOCKET": systemd.address}) as daemon:
        assert daemon.wait() == ExitCode.STORE_UNREACHABLE
        assert systemd.wait_for("EXTEND_TIMEOUT_USEC=")
        assert systemd.wait_for("STATUS=waiting for the store: database 'store' is unreachable")
        assert systemd.wait_for("STATUS=cannot start: database 'store' is unreachable")
        assert "READY=1" not in systemd.lines


def test_a_life_under_a_supervisor(tmp_path: Path) -> None:
    """Ready after the first pass, fed watchdog, quiet and not, stacks on request, a stop that names its job."""
    url = f"sqlite:///{tmp_path}/batchd.db"
    jobs = {"tick": {"kind": "noop", "schedule": "every 1s"}, "nap": {"kind": "sleep", "time": "3s", "stubborn": True}}
    config = write_config(tmp_path, {"store": {"url": url}, "jobs": jobs, "daemon": {"shutdown_grace": "20s"}})
    with (
        NotifySocket(tmp_path) as systemd,
        opened(url) as store,
        Daemon(config, environment={"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1000000"}) as daemon,
    ):
        daemon.ready()
        systemd.wait_for("READY=1")
        systemd.wait_for("STATUS=2 jobs, next tick")
        wait_until(lambda: systemd.lines.count("WATCHDOG=1") >= 4, what="the watchdog to be fed")

        daemon.signal(signal.SIGUSR2)
        daemon.wait_for_event("service.quiet")
        quiet_id = control.trigger(store, "tick", {}, created_by=CreatedBy.CLI)
        systemd.wait_for("STATUS=2 jobs, next tick in less than a minute; quiet")
        assert detail_of(store, quiet_id).run.state == RunState.QUEUED
        daemon.signal(signal.SIGUSR2)
        wait_for_state(store, quiet_id, RunState.SUCCEEDED)

        run_id = control.trigger(store, "nap", {}, created_by=CreatedBy.CLI)
        daemon.wait_for_event("run.started", run_id=run_id)
        daemon.signal(signal.SIGUSR1)
        assert daemon.wait_for_event("dump.run", job="nap")["run_id"] == run_id
        stacks = wait_until(lambda: daemon.events("dump.thread", thread="MainThread"), what="the stacks")
        assert "_serve" in stacks[0]["stack"]
        busy = "the stack of the thread that executes it"
        wait_until(lambda: [dump for dump in daemon.events("dump.thread") if "in execute" in dump["stack"]], what=busy)

        assert daemon.stop() == ExitCode.OK
        assert systemd.wait_for(f"STATUS=stopping, waiting for nap (run {run_id})")
        stopping = next(number for number, said in enumerate(systemd.messages) if "STOPPING=1" in said)
        after = [line for message in systemd.messages[stopping:] for line in message]
        assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in after)
        assert detail_of(store, run_id).run.state == RunState.SUCCEEDED
