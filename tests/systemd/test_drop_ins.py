"""The drop-ins that the package brings, each started on both systems with a job that shows what it is for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.support.lab
from tests.support.lab.machine import Machine
from tests.support.lab.systems import System

LAB = Path(tests.support.lab.__path__[0])
STATE = "/var/lib/batchd"
FOLDER = "/etc/systemd/system/batchd.service.d"
CONFIG = f"""
[daemon]
state = "{STATE}"
[jobs.look]
kind = "python"
target = "lab_jobs:look_around"
arguments = {{ into = "{STATE}/look.json" }}
isolation = "process"
[jobs.who]
kind = "command"
shell = true
command = "id -un; id -u"
"""
RUN_AS = '\n[jobs.other]\nkind = "command"\nuser = "nobody"\ncommand = ["id", "-un"]\n'


@pytest.fixture
def machine(system: System) -> Iterator[Machine]:
    """A machine with the package, its service stopped."""
    with system.machine() as booted:
        booted.run("systemctl", "stop", "batchd")
        booted.write("/etc/batchd/lab_jobs.py", (LAB / "lab_jobs.py").read_text(), mode=0o640, group="batchd")
        booted.write("/etc/batchd/config.toml", CONFIG, mode=0o640, group="batchd")
        booted.sh("install -d -o batchd -g batchd /srv/jobs; ip addr add 10.9.9.9/32 dev lo")
        yield booted


def test_each_drop_in_gives_or_takes_what_it_says(machine: Machine) -> None:
    """The unit as it is, then with one drop-in after the other; the last takes its user from the machine."""
    usual = looked_around(machine)
    assert {"runs_made_code", "reaches_others"} <= usual
    with_drop_in(machine, "strict")
    assert looked_around(machine) == usual - {"runs_made_code", "reaches_others"}
    with_drop_in(machine, "wide")
    more = {"writes_srv", "lists_homes", "asks_about_the_network", "makes_a_namespace"}
    assert looked_around(machine) == usual | more
    assert machine.exists("/tmp/of-the-service")
    runs_commands_as_others(machine)
    is_bounded(machine)
    needs_no_user(machine)


def with_drop_in(machine: Machine, name: str) -> None:
    """Start the service with that drop-in and no other; raises where it does not start."""
    machine.sh(
        f"rm -rf {FOLDER}; install -D -m 644 /usr/share/doc/batchd/examples/drop-ins/{name}.conf {FOLDER}/{name}.conf;"
        "systemctl daemon-reload; systemctl restart batchd"
    )


def looked_around(machine: Machine) -> frozenset[str]:
    """Return what a job could do."""
    machine.run("systemctl", "start", "batchd")
    machine.run("batchd", "trigger", "look", "--wait", user="batchd")
    found = json.loads(machine.read(f"{STATE}/look.json"))
    return frozenset(name for name, came_to in found.items() if came_to == "done")


def said_by(machine: Machine, job: str) -> list[str]:
    """Return what a run of the command wrote; asked for by root, who may with every drop-in."""
    run_id = json.loads(machine.run("batchd", "trigger", job, "--wait", "--json").stdout)["run_id"]
    lines = machine.journal(f"BATCHD_RUN_ID={run_id}", "BATCHD_EVENT=command.output")
    return [json.loads(entry["MESSAGE"])["line"] for entry in lines]


def runs_commands_as_others(machine: Machine) -> None:
    """See that `user = "…"` works, that the daemon has no more of root's power, and that its state is not lost."""
    machine.write("/etc/batchd/config.toml", CONFIG + RUN_AS, mode=0o640, group="batchd")
    with_drop_in(machine, "run-as")
    assert said_by(machine, "other") == ["nobody"]
    assert said_by(machine, "who") == ["root", "0"]
    assert machine.run("stat", "-c", "%a %G", STATE).stdout == "750 batchd\n"
    machine.write("/etc/batchd/config.toml", CONFIG, mode=0o640, group="batchd")


def is_bounded(machine: Machine) -> None:
    """See that systemd knows the bounds; whether the kernel keeps them is its own business."""
    with_drop_in(machine, "memory")
    assert machine.show("batchd", "MemoryMax") == str(2 << 30)
    assert machine.show("batchd", "TasksMax") == "500"
    assert machine.run("stat", "-c", "%U:%G", STATE, f"{STATE}/batchd.db").stdout.split() == ["batchd:batchd"] * 2


def needs_no_user(machine: Machine) -> None:
    """See that a user is made up, state goes over to it, and a reload says what to do instead."""
    machine.sh("systemctl stop batchd; userdel batchd")
    with_drop_in(machine, "dynamic-user")
    name, number = said_by(machine, "who")
    assert (name, 61184 <= int(number) <= 65519) == ("batchd", True)
    assert machine.run("readlink", STATE).stdout == "private/batchd\n"
    refused = machine.run("systemctl", "reload", "batchd", check=False)
    assert refused.returncode == 1
    assert "systemctl restart batchd" in machine.run("journalctl", "--no-pager", "-u", "batchd", "-n", "20").stdout
