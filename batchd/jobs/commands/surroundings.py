"""What a command finds around it: its user, its environment, its program."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchd.errors import JobError

_INHERITED = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "TZ", "TMPDIR", "HOME", "USER", "LOGNAME", "SHELL")
"""What every program may need and nobody keeps a secret in. Locale categories (LC_*) go along."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, as the command shall be."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def is_ours(self) -> bool:
        """Whether this process is that user already, so that nothing needs to change."""
        return self.uid == os.geteuid() and self.gid == os.getegid()


def account(user: str, group: str | None) -> Account:
    """Return the user, with another main group when one is named; raises JobError for one that there is not."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise JobError(f"there is no user {user!r} on this machine", retryable=False) from None
    gid = found.pw_gid
    if group is not None:
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            raise JobError(f"there is no group {group!r} on this machine", retryable=False) from None
    groups = tuple(sorted(os.getgrouplist(user, gid)))
    return Account(user, found.pw_uid, gid, groups, found.pw_dir, found.pw_shell)


def environment(own: Mapping[str, str], given: Mapping[str, str], who: Account | None) -> dict[str, str]:
    """Return the command's environment: a few names of the daemon's `own`, and those `given`.

    Nothing else of the daemon's: its secrets are in there.
    """
    kept = {name: value for name, value in own.items() if name in _INHERITED or name.startswith("LC_")}
    kept.setdefault("PATH", _DEFAULT_PATH)
    if who is not None:
        kept |= {"HOME": who.home, "USER": who.name, "LOGNAME": who.name, "SHELL": who.shell}
    return kept | dict(given)


def complaint_about(argv: Sequence[str], cwd: Path | None, path: str | None) -> str | None:
    """Return what keeps the program from being started as far as this process can see, or None."""
    folder = Path.cwd() if cwd is None else cwd
    if not folder.is_dir():
        return f"there is no folder {folder}"
    program = argv[0]
    if os.sep not in program:
        return None if shutil.which(program, path=path) else f"there is no program {program!r} in {path or 'PATH'}"
    file = folder / program
    if not file.exists():
        return f"there is no program {file}"
    if file.is_dir() or not os.access(file, os.X_OK):
        return f"{file} is no program that may be executed (chmod +x)"
    return None
