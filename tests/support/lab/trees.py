"""Small Debians that a lab machine can start from besides this machine's root, for another systemd than its own.

Made once with debootstrap (some 45 s) and kept outside the checkout: $BATCHD_LAB_CACHE, else /var/cache/batchd-lab.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libnss-systemd", "procps", "iproute2"),
    *("python3", "ca-certificates", "tzdata"),
)


def cache() -> Path:
    """Return the folder outside the checkout for what takes long to make."""
    folder = Path(os.environ.get("BATCHD_LAB_CACHE", "/var/cache/batchd-lab"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let nobody else make the same thing meanwhile, in whatever process."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def obstacle(suite: str) -> str | None:
    """Return why there can be no tree of the release here, or None."""
    if _tree(suite).exists() or shutil.which("debootstrap") or shutil.which("apt-get"):
        return None
    return f"a Debian {suite} needs debootstrap, and there is no apt-get to install it with"


def debian(suite: str) -> Path:
    """Return the root of the release, made when there is none yet; processes that ask at once wait for one of them."""
    tree = _tree(suite)
    with locked(tree):
        if not tree.exists():
            _bootstrap(suite, tree)
    return tree


def _tree(suite: str) -> Path:
    return cache() / f"{suite}-{hashlib.sha256(' '.join(_PACKAGES).encode()).hexdigest()[:12]}"


def _bootstrap(suite: str, tree: Path) -> None:
    if shutil.which("debootstrap") is None:
        try:
            _run("apt-get", "install", "-y", "-qq", "debootstrap")
        except RuntimeError:
            _run("apt-get", "update", "-qq")
            _run("apt-get", "install", "-y", "-qq", "debootstrap")
    half = tree.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    _run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", suite, str(half), *_mirror())
    for waste in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc"):
        shutil.rmtree(half / waste, ignore_errors=True)
    half.rename(tree)


def _mirror() -> list[str]:
    """Return the mirror that this machine's own packages come from where it is a Debian, else none: the usual one."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(LABEL) $(ORIGIN)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    sites = [line.split()[0] for line in listed.splitlines() if line.split()[1:] == ["Debian", "Debian"]]
    return sites[:1]


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-3000:]}")
