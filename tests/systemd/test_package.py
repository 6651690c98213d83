"""The Debian package's life on both systems: installed, upgraded under a running job, removed, purged."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.lab.machine import Machine
from tests.support.lab.systems import System

pytestmark = pytest.mark.timeout(900)  # the first test of a new machine makes what all later ones find

SLOW_JOB = """
[jobs.slow]
kind = "command"
command = ["sleep", "6"]
"""


@pytest.fixture(scope="module")
def machine(system: System) -> Iterator[Machine]:
    """A machine with the package."""
    with system.machine() as booted:
        yield booted


def batchd(machine: Machine, *arguments: str) -> str:
    """Run batchd as an administrator does."""
    return machine.run("batchd", *arguments, user="batchd").stdout


def is_running(machine: Machine) -> bool:
    """Return whether a daemon says that it is alive."""
    found = json.loads(batchd(machine, "status", "--json"))
    return any(worker["alive"] for worker in found["daemons"])


def test_an_installation_starts_the_service_at_once_and_at_boot(machine: Machine) -> None:
    """As Debian's services do; its files are those of the package, and its config is its own business."""
    assert machine.read("/var/lib/lab/state") == "active"
    assert machine.show("batchd", "ActiveState") == "active"
    assert machine.run("systemctl", "is-enabled", "batchd").stdout == "enabled\n"
    assert machine.run("dpkg", "--verify", "batchd").stdout == ""
    rights = machine.run(
        "stat", "-c", "%A %U:%G %n", "/etc/batchd", "/etc/batchd/config.toml", "/var/lib/batchd"
    ).stdout
    assert rights.splitlines() == [
        "drwxr-x--- root:batchd /etc/batchd",
        "-rw-r----- root:batchd /etc/batchd/config.toml",
        "drwxr-x--- batchd:batchd /var/lib/batchd",
    ]
    account = machine.run("getent", "passwd", "batchd").stdout.strip().split(":")
    assert account[5:] == ["/var/lib/batchd", "/usr/sbin/nologin"]


def test_an_installed_service_is_compiled(machine: Machine) -> None:
    """It may not write byte code itself, and would compile everything at each start."""
    sources = machine.sh("find /opt/batchd/lib -name '*.py' -path '*/batchd/*' | wc -l")
    compiled = machine.sh("find /opt/batchd/lib -name '*.pyc' -path '*/batchd/*' | wc -l")
    assert int(compiled) >= int(sources) > 100


def test_the_package_depends_on_the_python_of_its_release(machine: Machine, system: System) -> None:
    """It is built for one minor version, and says so."""
    needed = machine.run("dpkg-query", "-W", "-f", "${Depends}", "batchd").stdout.split(", ")
    assert f"python{system.release.python}" in needed
    assert f"systemd (>= {system.release.systemd})" in needed
    has_backoff = "RestartSteps" in machine.run("systemctl", "cat", "batchd").stdout
    assert has_backoff is (system.release.systemd >= 254)


def test_the_package_knows_no_other_way_of_installation(machine: Machine) -> None:
    """`batchd install` would put units over those of the package."""
    done = machine.run("batchd", "install", "--systemd", check=False)
    assert done.returncode == 2
    assert "comes from a package" in done.stderr


def test_an_upgrade_drains_keeps_and_goes_on(system: System) -> None:
    """A job in flight finishes, the config that somebody edited stays, what ran runs again, what was off stays off."""
    with system.machine() as machine:
        config = machine.read("/etc/batchd/config.toml") + SLOW_JOB
        machine.write("/etc/batchd/config.toml", config, mode=0o600, owner="batchd", group="batchd")
        machine.run("systemctl", "restart", "batchd")
        assert is_running(machine)
        batchd(machine, "trigger", "slow")
        machine.wait_until(lambda: "run.started" in events_of_slow(machine), unit="batchd")
        before = machine.show("batchd", "MainPID")

        machine.run("dpkg", "--install", system.package("2"), seconds=300)

        assert machine.show("batchd", "ActiveState") == "active"
        assert machine.show("batchd", "MainPID") != before
        machine.wait_until(lambda: "run.finished" in events_of_slow(machine), unit="batchd")
        assert machine.read("/etc/batchd/config.toml") == config
        assert machine.run("stat", "-c", "%a %U", "/etc/batchd/config.toml").stdout == "600 batchd\n"

        machine.run("systemctl", "disable", "--now", "batchd")
        machine.run("dpkg", "--install", system.package("1"), seconds=300)
        assert machine.show("batchd", "ActiveState") == "inactive"
        assert machine.run("systemctl", "is-enabled", "batchd", check=False).stdout == "disabled\n"

        removed_and_purged(machine)


def events_of_slow(machine: Machine) -> list[str]:
    """Return what the journal tells of the slow job; asking batchd itself may take as long as the job."""
    lines = [entry["MESSAGE"] for entry in machine.journal("-u", "batchd", "-b")]
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [line["event"] for line in told if line.get("job") == "slow"]


def removed_and_purged(machine: Machine) -> None:
    """See that a removal stops the service and keeps config and state, and that a purge leaves nothing."""
    machine.run("systemctl", "start", "batchd")
    machine.run("dpkg", "--remove", "batchd")
    assert machine.show("batchd", "ActiveState") == "inactive"
    assert machine.sh("ls /etc/batchd/config.toml /var/lib/batchd/batchd.db").splitlines()
    assert not machine.exists("/opt/batchd")
    machine.run("dpkg", "--purge", "batchd")
    left = machine.sh("ls -d /etc/batchd /var/lib/batchd* /var/cache/batchd* /opt/batchd 2>/dev/null || true")
    assert left == ""
    links = machine.sh("find /etc/systemd/system -lname '*batchd*' -o -name 'batchd.service'")
    assert links == ""
