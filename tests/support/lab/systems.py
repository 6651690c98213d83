"""The systems that batchd is tested on as a service, each with its Debian package installed.

What it takes to have one is made once and kept outside the checkout (trees.cache()): a tree of the release where this
machine is of another, and for each state of the sources the packages and the disks on which they are installed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.lab import machine, trees
from tests.support.lab.machine import Machine
from tests.support.lab.trees import cache, locked

PROJECT = Path(__file__).resolve().parents[3]


def _deb_build() -> Any:
    """Return the module that builds the packages: a script, in no folder that Python looks into."""
    spec = importlib.util.spec_from_file_location("batchd_deb_build", PROJECT / ".ci" / "deb" / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BUILD = _deb_build()
RELEASES = BUILD.RELEASES
_SOURCES = (
    "batchd",
    ".ci/deb",
    "systemd",
    "pyproject.toml",
    ".ci/constraints.txt",
    "tests/support/lab/machine.sh",
)
_REVISIONS = ("1", "2")
_FAST = ("--level", "1")
_KEPT_STATES = 2


@dataclass(frozen=True, slots=True)
class System:
    """One release of Debian: this machine itself where it is of it, else a small tree."""

    release: Any

    @property
    def root(self) -> Path:
        """Where its machines start from."""
        return Path("/") if self._is_here() else trees.debian(self.release.suite)

    def machine(self, *, binds: Sequence[str] = ()) -> Machine:
        """Return a machine, switched off, on which the package was installed: the service starts with it."""
        return Machine(self.root, binds=[f"{packages()}:/mnt/packages", *binds], disk=self._installed_disk())

    def package(self, revision: str = "1") -> str:
        """Return the path of the package inside a machine; revision 2 is one to upgrade to."""
        (found,) = packages().glob(f"batchd_*-{revision}~deb{self.release.number}_*.deb")
        return f"/mnt/packages/{found.name}"

    def obstacle(self) -> str | None:
        """Return why there can be no such machine here, or None."""
        reason = machine.obstacle()
        return reason if reason or self._is_here() else trees.obstacle(self.release.suite)

    def _is_here(self) -> bool:
        needed = ("/lib/systemd/systemd", f"/usr/bin/python{self.release.python}", "/usr/bin/dpkg")
        return self.release.suite == BUILD.suite_of_this_machine() and all(Path(path).exists() for path in needed)

    def _installed_disk(self) -> Path:
        """Return a disk on which dpkg has installed the package, and a record of what it said and came to."""
        disk = packages() / f"{self.release.suite}.disk"
        with locked(disk):
            if not disk.exists():
                with Machine(self.root, binds=[f"{packages()}:/mnt/packages"]) as fresh:
                    fresh.run("rm", "-f", "/usr/sbin/policy-rc.d")  # containers forbid packages to start anything
                    said = fresh.run("dpkg", "--install", self.package(), seconds=300)
                    fresh.write("/var/lib/lab/installed", said.stdout + said.stderr)
                    fresh.write("/var/lib/lab/state", fresh.show("batchd", "ActiveState"))
                    fresh.power_off()
                    fresh.save_disk(disk)
        return disk


SYSTEMS = tuple(System(release) for release in RELEASES.values())
"""systemd 252 and 257."""


def packages() -> Path:
    """Return the folder of the packages of these sources, built when there are none; tests that ask at once wait."""
    folder = cache() / f"packages-{_state_of_sources()}"
    with locked(folder):
        if not folder.exists():
            _forget_old()
            half = folder.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            _build(half)
            half.rename(folder)
    return folder


def _build(into: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            ".ci/deb/build.py",
            "--suite",
            *RELEASES,
            "--revision",
            *_REVISIONS,
            *_FAST,
            "--into",
            str(into),
        ],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"make deb: exit {done.returncode}\n{done.stdout[-3000:]}")


@functools.cache
def _state_of_sources() -> str:
    """Return a fingerprint of everything that goes into a package and an installation, as it was at first."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        source = PROJECT / name
        for path in sorted([source] if source.is_file() else source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(PROJECT)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _forget_old() -> None:
    """Remove all but the last few states, which nobody will ask for again, and halves that somebody broke off."""
    found = sorted(cache().glob("packages-*"), key=lambda path: path.stat().st_mtime)
    states = [path for path in found if path.is_dir() and not path.suffix]
    halves = [path for path in found if path.suffix == ".half" and path.stat().st_mtime < time.time() - 3600]
    for old in (*states[: -_KEPT_STATES + 1], *halves):
        shutil.rmtree(old, ignore_errors=True)
        old.with_suffix(".lock").unlink(missing_ok=True)
