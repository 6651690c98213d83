"""A machine in namespaces: a real systemd as process 1, over an overlay of this machine's root or of another tree.

    with Machine() as machine:                     # half a second
        machine.write("/etc/systemd/system/x.service", UNIT)
        machine.run("systemctl", "start", "x")
        machine.reboot()                           # what was written is still there; /run and /tmp are new
        assert machine.show("x", "ActiveState") == "active"

It has its own processes, mounts, host name, network (only a loopback), IPC and cgroups; nothing that it does stays when
it is closed, or when the tests die. What has no namespace is guarded by taking capabilities away, from process 1 and
from every command that is run inside: a `date -s` there would set this machine's clock (machine.sh, WITHOUT).

Needs root, util-linux 2.38, overlayfs and a writable cgroup2; `obstacle` says what is missing. There are no cgroup
controllers where the machine outside binds them to version 1, so limits (MemoryMax=, TasksMax=) may not be enforced.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import wait_until

_SCRIPT = Path(__file__).with_name("machine.sh")
_BOOT_SECONDS = 60
_COMMANDS = ("unshare", "nsenter", "setpriv", "mount", "pivot_root", "ip")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
    "DEBIAN_FRONTEND": "noninteractive",
    "container": "lab",
}


class CommandFailed(AssertionError):
    """A command inside the machine did not end with 0."""


def obstacle(root: Path = Path("/")) -> str | None:
    """Return why no systemd can be booted here, or None."""
    if os.geteuid() != 0:
        return "booting a systemd needs root (sudo make test)"
    missing = [command for command in _COMMANDS if shutil.which(command) is None]
    if missing:
        return f"booting a systemd needs {', '.join(missing)} (util-linux, iproute2)"
    if not (root / "lib/systemd/systemd").exists():
        return f"there is no systemd in {root} (apt-get install systemd)"
    cgroups = _cgroup_of_this_process()
    if cgroups is None or not os.access(cgroups, os.W_OK):
        return "booting a systemd needs a writable cgroup2 mount"
    return None


class Machine:
    """One machine; made switched off, `boot` starts it, `close` leaves nothing of it. A context manager boots it."""

    def __init__(self, root: Path = Path("/"), *, binds: Sequence[str] = (), disk: Path | None = None) -> None:
        """Take the tree that it starts from, and what else it sees: "SOURCE:TARGET", read-only, or "….:rw".

        `disk` is what another machine over the same tree has saved.
        """
        self._root = root
        self._saved = disk
        self._binds = tuple(binds)
        self._folder = Path(tempfile.mkdtemp(prefix="lab-"))
        cgroups = _cgroup_of_this_process()
        assert cgroups is not None, obstacle()
        self._cgroup = cgroups / self._folder.name
        self._without = subprocess.check_output([_SCRIPT, "capabilities"], text=True).strip()
        self._init: subprocess.Popen[bytes] | None = None
        self._disk = self._lay_out_disk()

    def __enter__(self) -> Self:
        try:
            self.boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def boot(self) -> None:
        """Start it and wait until its systemd has started everything."""
        assert self._init is None, "it runs"
        self._cgroup.mkdir(exist_ok=True)
        into = f"echo $$ >{self._cgroup}/cgroup.procs; exec nsenter --mount=/proc/{self._disk.pid}/ns/mnt -- "
        new = "unshare --pid --fork --kill-child --mount --propagation private --uts --ipc --net --cgroup -- "
        with (self._folder.with_suffix(".log")).open("wb") as said:
            self._init = subprocess.Popen(
                [
                    *("sh", "-c", f'{into}setpriv --pdeathsig KILL {new} "$@"', "sh"),
                    *(str(_SCRIPT), "boot", str(self._folder), *self._binds),
                ],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        try:
            wait_until(self._is_up, seconds=_BOOT_SECONDS, what="a systemd that has started everything")
        except AssertionError as error:
            error.add_note(self._folder.with_suffix(".log").read_text())
            if self._leader() is not None:
                error.add_note(self.run("systemctl", "list-jobs", check=False).stdout)
            raise

    def reboot(self) -> None:
        """Stop everything in order, as `reboot` does, and start again."""
        self.run("systemctl", "reboot", "--no-wall", check=False)
        self._await_end(_BOOT_SECONDS)
        self.boot()

    def cut_power(self) -> None:
        """End everything inside at once, as a pulled plug does; `boot` starts it again from what is on its disk."""
        leader = self._leader()
        if leader is not None:
            os.kill(leader, signal.SIGKILL)
        self._await_end(_BOOT_SECONDS)

    def power_off(self) -> None:
        """Stop everything in order; `boot` starts it again."""
        self.run("systemctl", "poweroff", "--no-wall", check=False)
        self._await_end(_BOOT_SECONDS)

    def save_disk(self, target: Path) -> None:
        """Write everything that differs from the tree into a tar file, for machines to come; it must be off."""
        assert self._init is None, "it runs"
        half = target.with_suffix(f".{os.getpid()}")
        written = f"/proc/{self._disk.pid}/root{self._folder}/written"
        subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "-cf", half, "-C", written, "."], check=True)
        half.replace(target)

    def close(self) -> None:
        """Cut the power and remove the disk, the cgroups and the folder."""
        if self._init is not None:
            self.cut_power()
        assert self._disk.stdin
        self._disk.stdin.close()
        self._disk.wait(10)
        self._remove_cgroups()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.with_suffix(".log").unlink(missing_ok=True)

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        given: bytes | str = b"",
        user: str | None = None,
        seconds: float = 90,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or as the user, and return what it said; raises CommandFailed."""
        done = subprocess.run(
            [*self._entering(user), *map(str, command)],
            input=given.encode() if isinstance(given, str) else given,
            capture_output=True,
            check=False,
            timeout=seconds,
        )
        text = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        if check and text.returncode:
            said = f"{text.stdout}{text.stderr}".strip()
            raise CommandFailed(f"{' '.join(map(str, command))}: exit {text.returncode}\n{said}")
        return text

    def start(self, *command: str | Path, user: str | None = None) -> subprocess.Popen[str]:
        """Start a command inside and return its process; it ends with the machine at the latest."""
        return subprocess.Popen(
            [*self._entering(user), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def sh(self, script: str, *, check: bool = True, user: str | None = None) -> str:
        """Run a shell script inside and return its standard output."""
        return self.run("sh", "-euc", script, check=check, user=user).stdout

    def write(
        self, path: str, content: bytes | str, *, mode: int = 0o644, owner: str = "root", group: str = "root"
    ) -> None:
        """Write a file inside; folders that are missing are made."""
        self.run("install", "-D", "-m", f"{mode:o}", "-o", owner, "-g", group, "/dev/stdin", path, given=content)

    def copy(self, source: Path, target: str, *, mode: int = 0o644) -> None:
        """Copy a file of this machine inside."""
        self.write(target, source.read_bytes(), mode=mode)

    def read(self, path: str) -> str:
        """Return the text of a file inside."""
        return self.run("cat", path).stdout

    def exists(self, path: str) -> bool:
        """Return whether there is such a file or folder inside."""
        return self.run("test", "-e", path, check=False).returncode == 0

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit, as `systemctl show` names it."""
        return self.run("systemctl", "show", unit, "--value", "-p", name).stdout.strip()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the journal's entries, oldest first: matches are journalctl's ("-u", "batchd", "BATCHD_JOB=x")."""
        said = self.run("journalctl", "--no-pager", "-a", "-o", "json", *matches).stdout
        return [json.loads(line) for line in said.splitlines()]

    def wait_until(self, condition: Callable[[], object], *, unit: str, seconds: float = 60, what: str = "") -> None:
        """Wait for the condition; a failure shows the unit's status and last lines."""
        try:
            wait_until(lambda: condition() or time.sleep(0.3), seconds=seconds, what=what)
        except AssertionError as error:
            error.add_note(self.run("systemctl", "status", "-n", "40", unit, check=False).stdout)
            raise

    def _entering(self, user: str | None) -> list[str]:
        leader = self._leader()
        if leader is None:
            raise RuntimeError("the machine does not run")
        who = ["--reuid", user, "--regid", self.run("id", "-g", user).stdout.strip(), "--init-groups"] if user else []
        return [
            *("nsenter", "--target", str(leader), "--all", "--root", "--wd", "--"),
            *("setpriv", f"--bounding-set={self._without}", f"--inh-caps={self._without}", *who, "--"),
            *("env", "-i", *(f"{name}={value}" for name, value in _ENVIRONMENT.items())),
        ]

    def _lay_out_disk(self) -> subprocess.Popen[bytes]:
        """Start the process whose mount namespace is the disk; it ends with its standard input, so with the tests."""
        disk = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "private", "--"),
                *(str(_SCRIPT), "disk", str(self._folder), str(self._root), str(self._saved or "")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert disk.stdout
        with disk.stdout:
            if disk.stdout.readline() != b"ready\n":
                raise RuntimeError("a lab machine's disk could not be laid out; the reason is above")
        return disk

    def _leader(self) -> int | None:
        """Return the process that is process 1 inside, by its number outside."""
        if self._init is None or self._init.poll() is not None:
            return None
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children")
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return None

    def _is_up(self) -> bool:
        assert self._init
        if self._init.poll() is not None:
            raise AssertionError(f"the machine's init ended with {self._init.returncode}")
        if self._leader() is None:
            return False
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded") or bool(time.sleep(0.03))

    def _await_end(self, seconds: float) -> None:
        if self._init is not None:
            self._init.wait(seconds)
            self._init = None

    def _remove_cgroups(self) -> None:
        """Remove the cgroups; the last processes may take a moment to leave them."""

        def is_gone() -> bool:
            for folder, _, _ in os.walk(self._cgroup, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            return not self._cgroup.exists()

        wait_until(is_gone, what=f"{self._cgroup} to be empty")


def _cgroup_of_this_process() -> Path | None:
    """Return this process's own cgroup2 folder: limits that hold for the tests hold for their machines."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            for entry in Path("/proc/self/cgroup").read_text().splitlines():
                if entry.startswith("0::"):
                    return Path(place) / entry.removeprefix("0::/")
    return None
