"""Trees that a lab machine can start from besides this machine's root: a small Debian 13, for its newer systemd.

Made once with debootstrap (some 45 s) into a cache outside the checkout: $BATCHD_LAB_CACHE, else /var/cache/batchd-lab.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libnss-systemd", "procps", "iproute2"),
    *("python3", "ca-certificates", "tzdata"),
)
_RELEASE = "trixie"


def obstacle_to_debian_13() -> str | None:
    """Return why there can be no Debian 13 here, or None; needs what `machine.obstacle` needs, too."""
    if _tree().exists() or shutil.which("debootstrap") or shutil.which("apt-get"):
        return None
    return "a Debian 13 for the lab needs debootstrap, and there is no apt-get to install it with"


def debian_13() -> Path:
    """Return the root of a Debian 13, made when there is none yet; processes that ask at once wait for one of them."""
    tree = _tree()
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tree.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            _bootstrap(tree)
    return tree


def _tree() -> Path:
    cache = Path(os.environ.get("BATCHD_LAB_CACHE", "/var/cache/batchd-lab"))
    return cache / f"{_RELEASE}-{hashlib.sha256(' '.join(_PACKAGES).encode()).hexdigest()[:12]}"


def _bootstrap(tree: Path) -> None:
    if shutil.which("debootstrap") is None:
        try:
            _run("apt-get", "install", "-y", "-qq", "debootstrap")
        except RuntimeError:
            _run("apt-get", "update", "-qq")
            _run("apt-get", "install", "-y", "-qq", "debootstrap")
    half = tree.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    _run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _RELEASE, str(half), *_mirror())
    for waste in (half / "var/cache/apt/archives", half / "var/lib/apt/lists", half / "usr/share/doc"):
        shutil.rmtree(waste, ignore_errors=True)
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
