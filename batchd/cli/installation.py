"""Making batchd a service of this machine, and undoing it: first what would be done, then doing it.

Everything may be done again: what is as it should be stays, what somebody has changed is theirs.
"""

from __future__ import annotations

import enum
import grp
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchd.cli.unit_files import State, UnitFile, unit_files
from batchd.errors import BatchdError, CannotCreate, UsageError

_GROUP = "batchd"
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 (where a program must not be)
_PACKAGED = (Path("/usr/lib/systemd/system/batchd.service"), Path("/lib/systemd/system/batchd.service"))
_NOT_REACHABLE = (
    "install it for the whole machine: `python3 -m venv /opt/batchd && /opt/batchd/bin/pip install batchd`, or "
    "`pipx install --global batchd`; then run `batchd install` of that one"
)


class Action(enum.Enum):
    """What is done with a file."""

    WRITE = "write"
    REPLACE = "replace"
    LEAVE = "leave"
    """It is as it should be, or it is the user's own."""

    KEEP = "keep"
    """It differs, and somebody has changed it: it stays, and they are told."""

    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Step:
    """One file and what is done with it."""

    file: UnitFile
    action: Action


class CommandFailed(BatchdError):
    """A program of the system that the installation needs did not do its part."""


def steps_to_install(root: Path, program: Path, systemd_version: int) -> list[Step]:
    """Return what has to be done so that batchd is a service."""
    steps = []
    for file in unit_files(root, str(program), systemd_version):
        match file.state():
            case State.ABSENT:
                action = Action.WRITE
            case State.SAME:
                action = Action.LEAVE
            case State.UNTOUCHED:
                action = Action.REPLACE
            case State.CHANGED:
                action = Action.LEAVE if file.is_kept else Action.KEEP
        steps.append(Step(file, action))
    return steps


def steps_to_uninstall(root: Path, program: Path, systemd_version: int) -> list[Step]:
    """Return what has to be done so that it is none any more: the config stays, and what somebody has changed."""
    removable = {State.SAME: Action.REMOVE, State.UNTOUCHED: Action.REMOVE, State.CHANGED: Action.KEEP}
    found = [(file, file.state()) for file in unit_files(root, str(program), systemd_version) if not file.is_kept]
    return [Step(file, removable[state]) for file, state in found if state is not State.ABSENT]


def apply_installation(steps: Sequence[Step], *, root: Path, run: Callable[..., None]) -> None:
    """Write what is to be written; `run` runs a command of the system. Raises CannotCreate and what `run` raises."""
    writing = [step.file for step in steps if step.action in (Action.WRITE, Action.REPLACE)]
    try:
        for file in writing:
            if not file.is_kept:
                _write(file)
        _make_config(root, [file for file in writing if file.is_kept], run)
    except OSError as error:
        raise CannotCreate(f"cannot write {error.filename}: {error.strerror}") from error
    run("systemctl", "daemon-reload")


def apply_removal(steps: Sequence[Step], *, root: Path, run: Callable[..., None]) -> None:
    """Stop everything, then remove what is to be removed: a unit without a file cannot be told by name any more."""
    enabled = {link.name for link in (root / "etc/systemd/system").glob("*.wants/batchd*")}
    for unit in ("batchd.socket", "batchd.service", *sorted(enabled - {"batchd.socket", "batchd.service"})):
        run("systemctl", "disable", "--now", unit, check=False)
    run("systemctl", "stop", "batchd@*.service", check=False)
    try:
        for step in steps:
            if step.action is Action.REMOVE:
                _remove(step.file.path)
    except OSError as error:
        raise CannotCreate(f"cannot remove {error.filename}: {error.strerror}") from error
    run("systemctl", "daemon-reload")


def installed_program() -> Path:
    """Return the `batchd` of this Python."""
    beside = Path(sys.prefix) / "bin" / "batchd"
    return beside if beside.exists() else Path(shutil.which("batchd") or beside)


def require_reachable(program: Path) -> None:
    """Raise CannotCreate when a service, which is no user of flesh, could not start the program."""
    for needed in (program, Path(sys.executable).resolve(), Path(__file__).resolve()):
        obstacle = _obstacle(needed)
        if obstacle:
            raise CannotCreate(f"the service could not start {program}: {obstacle}", hint=_NOT_REACHABLE)


def require_no_package() -> None:
    """Raise UsageError where the Debian package has made batchd a service already."""
    for unit in _PACKAGED:
        if unit.exists():
            raise UsageError(
                f"batchd is a service here already: {unit} comes from a package",
                hint="use its batchd, or remove the package first (apt-get remove batchd keeps config and state)",
            )


def systemd_version() -> int:
    """Return the version of this machine's systemd; raises UsageError where there is none."""
    program = shutil.which("systemctl")
    if program is None:
        raise UsageError("there is no systemd on this machine", hint="let another supervisor run `batchd run`")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    digits = "".join(char if char.isdigit() else " " for char in said.partition("\n")[0]).split()
    return int(digits[0]) if digits else 0


def run_command(*command: str, check: bool = True) -> None:
    """Run a program of the system; raises CommandFailed with what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    except FileNotFoundError:
        raise CommandFailed(f"there is no {command[0]} on this machine") from None
    if check and done.returncode:
        raise CommandFailed(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")


def _write(file: UnitFile) -> None:
    """Put the whole file in its place at once, with its mode from the beginning."""
    file.path.parent.mkdir(parents=True, exist_ok=True)
    half = file.path.with_name(f".{file.path.name}.new")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as writing:
        os.fchmod(descriptor, file.mode)
        writing.write(file.content)
    half.replace(file.path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.name.endswith(".service.d") and not any(path.parent.iterdir()):
        path.parent.rmdir()


def _make_config(root: Path, missing: Sequence[UnitFile], run: Callable[..., None]) -> None:
    """Make the user, and the config's folder: root writes it, the service reads it, nobody else may look."""
    run("systemd-sysusers", str(root / "etc/sysusers.d/batchd.conf"))
    folder = root / "etc/batchd"
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o750)
        folder.chmod(0o750)
        _give_to_group(folder)
    for file in missing:
        _write(file)
        _give_to_group(file.path)


def _give_to_group(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, 0, grp.getgrnam(_GROUP).gr_gid)


def _obstacle(path: Path) -> str | None:
    """Return why the user of the service could not use this file, or None."""
    for hidden in _HIDDEN:
        if path.is_relative_to(hidden):
            return f"{path} is below {hidden}, which the service does not see"
    for part in (path, *path.parents):
        try:
            mode = part.stat().st_mode
        except OSError as error:
            return f"{part}: {error.strerror}"
        needed = stat.S_IXOTH if part.is_dir() else stat.S_IROTH
        if not mode & needed:
            return f"{part} may be used by its owner only"
    return None
