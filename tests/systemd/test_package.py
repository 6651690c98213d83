"""The Debian package's life on both systems: installed, served from a socket, upgraded under a running job, purged."""

from __future__ import annotations

import json
from pathlib import Path

import tests.support.lab
from tests.support.lab.machine import Machine
from tests.support.lab.systems import System

LAB = Path(tests.support.lab.__path__[0])
CONFIG = "/etc/batchd/config.toml"
SLOW_JOB = """
[jobs.slow]
kind = "command"
command = ["sleep", "3"]
"""
FROM_SOCKET = """
[http]
listen = "systemd"
"""


def test_a_package_is_installed_upgraded_removed_and_purged(system: System) -> None:
    """One life on one machine, since installing takes longest; each step says what it sees to."""
    with system.machine() as machine:
        is_started_at_once_and_at_boot(machine)
        is_compiled(machine)
        depends_on_what_its_release_has(machine, system)
        knows_no_other_way_of_installation(machine)
        refuses_no_connection_when_it_restarts(machine)
        says_why_it_does_not_start(machine)
        is_upgraded_under_a_running_job(machine, system)
        is_removed_and_purged(machine)


def is_started_at_once_and_at_boot(machine: Machine) -> None:
    """See that the service runs, as Debian's do; its files are those of the package, its config is its own business."""
    assert machine.read("/var/lib/lab/state") == "active"
    assert machine.show("batchd", "ActiveState") == "active"
    assert machine.run("systemctl", "is-enabled", "batchd").stdout == "enabled\n"
    assert machine.run("dpkg", "--verify", "batchd").stdout == ""
    rights = machine.run("stat", "-c", "%A %U:%G %n", "/etc/batchd", CONFIG, "/var/lib/batchd").stdout
    assert rights.splitlines() == [
        "drwxr-x--- root:batchd /etc/batchd",
        "-rw-r----- root:batchd /etc/batchd/config.toml",
        "drwxr-x--- batchd:batchd /var/lib/batchd",
    ]
    account = machine.run("getent", "passwd", "batchd").stdout.strip().split(":")
    assert account[5:] == ["/var/lib/batchd", "/usr/sbin/nologin"]


def is_compiled(machine: Machine) -> None:
    """See that no start has to compile: the service may not write byte code itself."""
    sources = machine.sh("find /opt/batchd/lib -name '*.py' -path '*/batchd/*' | wc -l")
    compiled = machine.sh("find /opt/batchd/lib -name '*.pyc' -path '*/batchd/*' | wc -l")
    assert int(compiled) >= int(sources) > 100


def depends_on_what_its_release_has(machine: Machine, system: System) -> None:
    """See that it is built for one minor version of Python and one systemd, and says so."""
    needed = machine.run("dpkg-query", "-W", "-f", "${Depends}", "batchd").stdout.split(", ")
    assert f"python{system.release.python}" in needed
    assert f"systemd (>= {system.release.systemd})" in needed
    has_backoff = "RestartSteps" in machine.run("systemctl", "cat", "batchd").stdout
    assert has_backoff is (system.release.systemd >= 254)


def knows_no_other_way_of_installation(machine: Machine) -> None:
    """See that `batchd install` puts no units over those of the package."""
    done = machine.run("batchd", "install", "--systemd", check=False)
    assert done.returncode == 2
    assert "comes from a package" in done.stderr


def refuses_no_connection_when_it_restarts(machine: Machine) -> None:
    """See that whoever asks the listener of batchd.socket is answered, also across two restarts of the service."""
    machine.sh(f"cat >>{CONFIG} <<'END'\n{FROM_SOCKET}\nEND")
    # Not beside a service that runs: systemd refuses to open its socket then.
    assert machine.run("systemctl", "start", "batchd.socket", check=False).returncode == 1
    machine.sh("systemctl stop batchd && systemctl enable --now batchd.socket && systemctl start batchd")
    machine.copy(LAB / "visitor.py", "/srv/visitor.py")
    files = ("/run/answered", "/run/enough")
    with machine.start("python3", "/srv/visitor.py", "http://127.0.0.1:8787/healthz", *files) as visitor:
        for _ in range(3):
            machine.wait_until(lambda: machine.exists("/run/answered"), unit="batchd", what="an answer")
            before = machine.show("batchd", "MainPID")
            machine.sh("systemctl restart batchd; rm /run/answered")
            assert machine.show("batchd", "MainPID") != before
        machine.run("touch", "/run/enough")
        said, _ = visitor.communicate(timeout=150)
    came_to = json.loads(said)
    assert set(came_to) == {"200"}, came_to
    assert came_to["200"] >= 3


def says_why_it_does_not_start(machine: Machine) -> None:
    """See that a config that is wrong is told in the status, is not tried again and again, and can be put right."""
    machine.sh(f"cp -p {CONFIG} /srv/config.toml; echo 'no toml [' >>{CONFIG}")
    assert machine.run("systemctl", "restart", "batchd", check=False).returncode == 1
    assert machine.show("batchd", "ActiveState") == "failed"
    assert (machine.show("batchd", "ExecMainStatus"), machine.show("batchd", "NRestarts")) == ("78", "0")
    assert "is not TOML" in machine.run("systemctl", "status", "--no-pager", "batchd", check=False).stdout
    machine.sh(f"cp -p /srv/config.toml {CONFIG} && systemctl reset-failed batchd.socket && systemctl start batchd")


def is_upgraded_under_a_running_job(machine: Machine, system: System) -> None:
    """See that a job in flight is not lost, config and rights stay, what ran runs again, and what was off stays off."""
    config = machine.read(CONFIG) + SLOW_JOB
    machine.write(CONFIG, config, mode=0o600, owner="batchd", group="batchd")
    machine.run("systemctl", "reload", "batchd")
    machine.run("batchd", "trigger", "slow", user="batchd")
    machine.wait_until(lambda: "run.started" in events_of_slow(machine), unit="batchd")
    before = machine.show("batchd", "MainPID")

    machine.run("dpkg", "--install", system.package("2"), seconds=300)

    for unit in ("batchd.service", "batchd.socket"):
        assert machine.show(unit, "ActiveState") == "active"
    assert machine.show("batchd", "MainPID") != before
    machine.wait_until(lambda: "run.finished" in events_of_slow(machine), unit="batchd", what="the end of the job")
    assert machine.read(CONFIG) == config
    assert machine.run("stat", "-c", "%a %U", CONFIG).stdout == "600 batchd\n"

    machine.run("systemctl", "disable", "--now", "batchd.socket", "batchd")
    machine.run("dpkg", "--install", system.package("1"), seconds=300)
    assert machine.show("batchd", "ActiveState") == "inactive"
    assert machine.run("systemctl", "is-enabled", "batchd", check=False).stdout == "disabled\n"


def events_of_slow(machine: Machine) -> list[str]:
    """Return what the journal tells of the slow job; asking batchd itself may take as long as the job."""
    lines = [entry["MESSAGE"] for entry in machine.journal("-u", "batchd", "-b", "BATCHD_JOB=slow")]
    return [json.loads(line)["event"] for line in lines]


def is_removed_and_purged(machine: Machine) -> None:
    """See that a removal stops the service and keeps config and state, and that a purge leaves nothing."""
    machine.run("systemctl", "enable", "batchd.socket")
    machine.run("systemctl", "start", "batchd.socket", "batchd")
    machine.run("dpkg", "--remove", "batchd")
    assert machine.show("batchd", "ActiveState") == "inactive"
    assert machine.sh("ls /etc/batchd/config.toml /var/lib/batchd/batchd.db").splitlines()
    assert not machine.exists("/opt/batchd")
    machine.run("dpkg", "--purge", "batchd")
    left = machine.sh("ls -d /etc/batchd /var/lib/batchd* /var/cache/batchd* /opt/batchd 2>/dev/null || true")
    assert left == ""
    links = machine.sh("find /etc/systemd/system -lname '*batchd*' -o -name 'batchd.*'")
    assert links == ""
