"""`batchd install --systemd` on a machine with a batchd from pip: tried, done, repeated, kept by hand, undone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab.machine import Machine
from tests.support.lab.systems import System

BATCHD = "/opt/from-pip/bin/batchd"
UNIT = "/etc/systemd/system/batchd.service"
CONFIG = "/etc/batchd/config.toml"


@pytest.fixture
def machine(system: System) -> Iterator[Machine]:
    """A machine whose batchd is in a virtual environment of its own and no service yet."""
    with system.machine() as booted:
        booted.sh(
            "cp -a /opt/batchd /opt/from-pip && dpkg --purge batchd && userdel batchd && "
            f"sed -i '1s#/opt/batchd#/opt/from-pip#' {BATCHD} && rm -f /usr/lib/systemd/system/batchd*"
        )
        yield booted


def test_a_batchd_from_pip_becomes_a_service_and_ceases_to_be_one(machine: Machine, system: System) -> None:
    """With root and not without; a second time changes nothing; what somebody changed and what is theirs stays."""
    before = machine.run(BATCHD, "install", "--systemd", "--dry-run", user="nobody").stdout
    assert f"{UNIT}  would be written" in before
    assert not machine.exists(UNIT)
    assert machine.run(BATCHD, "install", "--systemd", user="nobody", check=False).returncode == 77

    assert "systemctl enable --now batchd" in machine.run(BATCHD, "install", "--systemd").stdout
    rights = machine.run("stat", "-c", "%a %U:%G", "/etc/batchd", CONFIG, UNIT).stdout
    assert rights.splitlines() == ["750 root:batchd", "640 root:batchd", "644 root:root"]
    # As `sudo -u batchd` does from root's home, which the user batchd cannot see.
    as_service = "cd /root && exec setpriv --reuid=batchd --regid=batchd --init-groups"
    assert f"{CONFIG}: right" in machine.sh(f"{as_service} {BATCHD} check --connect")
    machine.run("systemctl", "enable", "--now", "batchd")
    assert machine.show("batchd", "ActiveState") == "active"
    assert BATCHD in machine.show("batchd", "ExecStart")
    assert machine.run("systemd-analyze", "verify", "--man=no", "batchd.service").stderr == ""
    has_backoff = "RestartSteps" in machine.run("systemctl", "cat", "batchd").stdout
    assert has_backoff is (system.release.systemd >= 254)

    machine.sh(f"echo '# mine' >>{CONFIG}; echo '# mine' >>{UNIT}")
    again = machine.run(BATCHD, "install", "--systemd")
    assert f"{UNIT}  KEPT" in again.stdout
    assert "systemctl edit batchd.service" in again.stderr
    assert {line.partition("  ")[2] for line in again.stdout.splitlines() if line.startswith("/")} == {
        *("as it was", "KEPT: it was changed here"),
    }
    assert machine.read(CONFIG).endswith("# mine\n")

    machine.run(BATCHD, "install", "--systemd", "--uninstall")
    assert machine.show("batchd", "ActiveState") == "inactive"
    assert machine.sh("find /etc/systemd/system /etc/sysusers.d -name '*batchd*'").split() == [UNIT]
    assert machine.read(CONFIG).endswith("# mine\n")
    assert machine.exists("/var/lib/batchd/batchd.db")
