"""The files of the service as batchd brings them, for the program that is installed here.

They come from the folder `systemd/` of the project, which lies beside the package in a checkout and inside it when it
was installed. A unit carries the fingerprint of what batchd wrote, so that a later installation can tell a file that
nobody has touched from one that somebody has made their own.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAM_IN_FILES = "/opt/batchd/bin/batchd"
"""What the files of the project call the program."""

KNOWS_BACKOFF = 254
"""The first systemd that knows RestartSteps=; an older one would complain of it at every reload."""

_MARK = "# Written by `batchd install`, fingerprint "
_PACKAGE = Path(__file__).resolve().parents[1]


class State(enum.Enum):
    """What there is in a file's place."""

    ABSENT = "absent"
    SAME = "same"
    UNTOUCHED = "untouched"
    """Written by an earlier `batchd install`, and as it was written."""

    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class UnitFile:
    """One file: where it goes and what is in it. `is_kept` says that it is the user's as soon as it is there."""

    path: Path
    content: str
    mode: int = 0o644
    is_kept: bool = False

    def state(self) -> State:
        """Return what there is in its place."""
        try:
            found = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return State.ABSENT
        if found == self.content:
            return State.SAME
        return State.UNTOUCHED if _is_untouched(found) else State.CHANGED


def unit_files(root: Path, program: str, systemd_version: int) -> Iterator[UnitFile]:
    """Yield the files of the service below `root`, units first and the config last."""
    units = root / "etc/systemd/system"
    for name in ("batchd.service", "batchd@.service", "batchd.socket"):
        yield UnitFile(units / name, _marked(_brought(name).replace(PROGRAM_IN_FILES, program)))
    if systemd_version >= KNOWS_BACKOFF:
        for folder in ("batchd.service.d", "batchd@.service.d"):
            yield UnitFile(units / folder / "10-backoff.conf", _marked(_brought("batchd.service.d/backoff.conf")))
    yield UnitFile(root / "etc/sysusers.d/batchd.conf", _marked(_brought("batchd.sysusers")))
    yield UnitFile(root / "etc/batchd/config.toml", _brought("config.toml"), mode=0o640, is_kept=True)


def _brought(name: str) -> str:
    installed = _PACKAGE / "systemd_files" / name
    return (installed if installed.exists() else _PACKAGE.parent / "systemd" / name).read_text(encoding="utf-8")


def _marked(text: str) -> str:
    return f"{_MARK}{_fingerprint(text)}. Change it with a drop-in: systemctl edit.\n{text}"


def _is_untouched(found: str) -> bool:
    head, _, text = found.partition("\n")
    return head.startswith(_MARK) and _fingerprint(text) in head


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
