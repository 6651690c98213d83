"""The daemon under a real systemd: started, watched, reloaded, frozen, killed, stopped, rebooted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab.machine import Machine, obstacle
from tests.support.launcher import PROJECT
from tests.support.needs import require
from tests.support.waiting import wait_until

UNIT = "batchd.service"
CONFIG = "/etc/batchd/config.toml"
COMMANDS = "/etc/batchd/commands.toml"
"""The same without what only the service may read, for commands."""

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_SYSTEMS = Path("/usr/bin") / _VERSION
_PYTHON = _SYSTEMS if _SYSTEMS.exists() else Path("/opt/python/bin") / _VERSION
"""The system's own interpreter of the version that the libraries are for, else the one that runs the tests."""

_PROGRAM = f"""#!/bin/sh
export PYTHONPATH=/opt/checkout:/opt/checkout/tests/support/plugin:/opt/libraries PYTHONDONTWRITEBYTECODE=1
exec {_PYTHON} -m batchd "$@"
"""
_DROP_IN = """
[Service]
WatchdogSec=4
RestartSec=200ms
LoadCredential=smtp:/etc/batchd-smtp
"""
_STATE = """
[daemon]
state = "/var/lib/batchd"
shutdown_grace = "20s"
[log]
format = "json"
"""
_HEAD = f"""{_STATE}
[mail]
host = "localhost"
from = "batchd <batchd@example.com>"
user = "batchd"
password_file = "smtp"
"""
_JOBS = """
[jobs.tick]
kind = "noop"
schedule = "every 1s"
catch_up = "once"
[jobs.nap]
kind = "sleep"
time = "4s"
stubborn = true
[jobs.long]
kind = "sleep"
time = "600s"
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine on which this checkout's batchd is installed as a service, not started."""
    require(obstacle())
    libraries = Path(pytest.__file__).parents[1]
    binds = (f"{PROJECT}:/opt/checkout", f"{libraries}:/opt/libraries", f"{sys.base_prefix}:/opt/python")
    with Machine(binds=binds) as booted:
        booted.write("/opt/batchd/bin/batchd", _PROGRAM, mode=0o755)
        booted.copy(PROJECT / "systemd/batchd.sysusers", "/usr/lib/sysusers.d/batchd.conf")
        booted.run("systemd-sysusers")
        booted.copy(PROJECT / "systemd/batchd.service", f"/etc/systemd/system/{UNIT}")
        booted.write(f"/etc/systemd/system/{UNIT}.d/test.conf", _DROP_IN)
        booted.write("/etc/batchd-smtp", "hunter2-smtp\n", mode=0o600)
        booted.write(CONFIG, _HEAD + _JOBS, mode=0o640, group="batchd")
        booted.write(COMMANDS, _STATE + _JOBS)
        booted.run("systemctl", "daemon-reload")
        yield booted


@pytest.fixture
def started(machine: Machine) -> Machine:
    """The machine with a service that is ready, on the first config."""
    machine.write(CONFIG, _HEAD + _JOBS, mode=0o640, group="batchd")
    done = machine.run("systemctl", "start", UNIT, check=False)
    assert done.returncode == 0, machine.run("journalctl", "--no-pager", "-n", "40", check=False).stdout
    return machine


def batchd(machine: Machine, *arguments: str, check: bool = True) -> str:
    """Return what a command prints, run by root."""
    command = ("/opt/batchd/bin/batchd", arguments[0], "--config", COMMANDS, *arguments[1:])
    return machine.run(*command, check=check).stdout


def trigger(machine: Machine, job: str) -> int:
    """Start a run of the job, wait until it is at work and return its number."""
    run_id = int(json.loads(batchd(machine, "trigger", job, "--json"))["run_id"])
    wait_for(machine, run_id, "run.started")
    return run_id


def wait_for(machine: Machine, run_id: int, event: str) -> None:
    """Wait until the journal has that event of the run."""
    found = (f"BATCHD_RUN_ID={run_id}", f"BATCHD_EVENT={event}")
    machine.wait_until(lambda: machine.journal(*found), unit=UNIT, what=f"{event} of run {run_id}")


def run_of(machine: Machine, run_id: int) -> dict[str, Any]:
    """Return the run as `batchd show` has it."""
    said: dict[str, Any] = json.loads(batchd(machine, "show", str(run_id), "--json"))
    return said.get("run", said)


def main_pid(machine: Machine) -> str:
    """Return the number of the daemon's process."""
    return machine.show(UNIT, "MainPID")


def test_a_start_ends_with_ready_and_status_is_a_sentence(started: Machine) -> None:
    """`systemctl start` returns when the daemon plans; `systemctl status` says what it is at."""
    assert started.show(UNIT, "ActiveState") == "active"
    assert "3 jobs" in started.show(UNIT, "StatusText")
    assert "next tick in less than a minute" in started.show(UNIT, "StatusText")
    assert started.sh("stat -c %a:%G /run/batchd/control.sock").strip() == "660:batchd"


def test_a_credential_is_for_the_service_alone(started: Machine) -> None:
    """The daemon has read it; nobody else can, and it is in no environment of a process."""
    pid = main_pid(started)
    file = f"/run/credentials/{UNIT}/smtp"
    assert started.run("test", "-r", file, user="nobody", check=False).returncode == 1
    assert "hunter2" not in started.sh(f"tr '\\0' '\\n' </proc/{pid}/environ")
    assert "hunter2" not in started.sh(f"journalctl --no-pager -u {UNIT}; systemctl show {UNIT}")


def test_reload_takes_over_a_good_config_and_refuses_a_bad_one(started: Machine) -> None:
    """`systemctl reload` succeeds or fails with the config; the service, and what runs, go on either way."""
    pid, run_id = main_pid(started), trigger(started, "long")
    started.write(CONFIG, f"{_HEAD}{_JOBS}[jobs.new]\nkind = 'noop'\n", mode=0o640, group="batchd")
    started.run("systemctl", "reload", UNIT)
    assert "4 jobs" in started.show(UNIT, "StatusText")
    started.write(CONFIG, f"{_HEAD}{_JOBS}[jobs.new]\nkind = 'nope'\n", mode=0o640, group="batchd")
    refused = started.run("systemctl", "reload", UNIT, check=False)
    assert refused.returncode != 0
    assert (started.show(UNIT, "ActiveState"), main_pid(started)) == ("active", pid)
    started.wait_until(lambda: "refused" in started.show(UNIT, "StatusText"), unit=UNIT, what="the refusal in STATUS")
    said = started.journal("-u", UNIT, "BATCHD_EVENT=config.rejected")[-1]
    assert "there is no kind" in said["MESSAGE"] or "nope" in said["MESSAGE"]
    assert said["PRIORITY"] == "3"
    assert run_of(started, run_id)["state"] == "running"
    started.write(CONFIG, _HEAD + _JOBS, mode=0o640, group="batchd")
    started.run("systemctl", "reload", UNIT)
    assert "refused" not in started.show(UNIT, "StatusText")
    batchd(started, "cancel", str(run_id))


def test_the_journal_finds_a_run_and_every_line_is_json(started: Machine) -> None:
    """`journalctl BATCHD_RUN_ID=…`, and `journalctl -o cat` through a JSON parser."""
    run_id = int(json.loads(batchd(started, "trigger", "tick", "--json"))["run_id"])
    match = f"BATCHD_RUN_ID={run_id}"
    started.wait_until(lambda: len(started.journal(match)) >= 2, unit=UNIT, what="the lines of the run")
    lines = [json.loads(entry["MESSAGE"]) for entry in started.journal(match)]
    assert [line["event"] for line in lines] == ["run.started", "run.finished"]
    assert {line["trigger"] for line in lines} == {"manual"}
    assert {entry["BATCHD_JOB"] for entry in started.journal(match)} == {"tick"}
    ours = (f"_PID={main_pid(started)}", f"_SYSTEMD_UNIT={UNIT}")  # before us, another process may have had the pid
    for line in started.run("journalctl", "--no-pager", "-o", "cat", *ours).stdout.splitlines():
        assert json.loads(line)["event"]


def test_a_frozen_daemon_is_killed_with_its_stacks_and_its_run_recovers(started: Machine) -> None:
    """No sign of life within WatchdogSec: SIGABRT, every thread's stack in the journal, a new daemon, the run again."""
    pid, run_id = main_pid(started), trigger(started, "nap")
    started.run("kill", "-STOP", pid)
    started.wait_until(lambda: main_pid(started) not in {pid, "0"}, unit=UNIT, what="another daemon")
    wait_for(started, run_id, "run.finished")
    assert run_of(started, run_id)["attempt"] == 1
    said = started.run("journalctl", "--no-pager", "-o", "cat", f"_PID={pid}").stdout
    assert "Fatal Python error: Aborted" in said
    assert "apscheduler" in said
    assert started.show(UNIT, "Result") in {"success", "watchdog"}


def test_kill_9_is_followed_by_another_daemon(started: Machine) -> None:
    """Without a word, and without waiting for the lease."""
    pid, run_id = main_pid(started), trigger(started, "nap")
    started.run("kill", "-KILL", pid)
    wait_for(started, run_id, "run.finished")
    assert main_pid(started) not in {pid, "0"}


def test_a_stop_waits_for_the_run_at_work_and_names_it(started: Machine) -> None:
    """Inside TimeoutStopSec, with the job in `systemctl status` meanwhile."""
    run_id = trigger(started, "nap")
    named = f"waiting for nap (run {run_id})"
    with started.start("systemctl", "stop", UNIT) as stopping:
        started.wait_until(lambda: named in started.show(UNIT, "StatusText"), unit=UNIT, what="the job in STATUS")
        assert stopping.wait(60) == 0
    assert (started.show(UNIT, "Result"), started.show(UNIT, "ExecMainStatus")) == ("success", "0")
    assert run_of(started, run_id)["state"] == "succeeded"
    assert not started.exists("/run/batchd/control.sock")


def test_what_a_reboot_missed_is_caught_up(started: Machine) -> None:
    """The fires of the time that the machine was off: counted, and the latest of them run."""
    started.run("systemctl", "enable", UNIT)
    started.power_off()
    off = time.monotonic()
    wait_until(lambda: time.monotonic() - off > 2.5, what="two fires at least that nobody is there for")
    started.boot()
    started.wait_until(lambda: started.show(UNIT, "ActiveState") == "active", unit=UNIT, what="the service after boot")

    def caught_up() -> object:
        runs = json.loads(batchd(started, "runs", "--job", "tick", "--limit", "200", "--json"))["runs"]
        return any(run["created_by"] == "catch_up" for run in runs)

    started.wait_until(caught_up, unit=UNIT, what="a caught-up fire")
