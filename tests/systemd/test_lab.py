"""The lab itself: what is written outlives a reboot and a power cut, and nothing inside reaches the machine outside."""

from __future__ import annotations

import time

from tests.support.lab.machine import Machine


def test_a_machine_keeps_its_disk_and_loses_its_memory(machine: Machine) -> None:
    """A reboot in order and a power cut both start again from the disk."""
    machine.write("/var/lib/kept", "kept")
    machine.write("/run/lost", "lost")
    machine.reboot()
    assert machine.read("/var/lib/kept") == "kept"
    assert not machine.exists("/run/lost")
    machine.cut_power()
    machine.boot()
    assert machine.read("/var/lib/kept") == "kept"
    assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""


def test_a_machine_cannot_set_the_clock_or_reach_other_processes(machine: Machine) -> None:
    """The clock has no namespace, so the right to set it is gone; processes and mounts outside cannot be seen."""
    before = time.time()
    assert machine.run("date", "-s", "2001-01-01", check=False).returncode == 1
    assert abs(time.time() - before) < 3600
    assert machine.read("/proc/1/comm") == "systemd\n"
    assert "pytest" not in machine.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", check=False)
    assert machine.sh("cut -d' ' -f2 /proc/mounts | grep -c .outside || true").strip() == "0"
