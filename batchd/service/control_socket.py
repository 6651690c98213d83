"""Where the control socket is, for the daemon that makes it and for the command that looks for it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

NAME = "control.sock"
LONGEST_LINE = 1 << 20
_LONGEST_PATH = 100  # bytes; the kernel's limit is 108 with the NUL
_RUN = Path("/run")
_STATE = re.compile(r"""^\s*state\s*=\s*["']([^"'\n]+)["']""", re.MULTILINE)


def folder_of(state: Path, environ: Mapping[str, str]) -> Path:
    """Return the folder in which a daemon makes its socket: systemd's runtime directory, or its state folder."""
    given = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(given) if given else state


def candidates(config: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the sockets that a daemon on that config may have made, wherever this command was started.

    The config need not be valid: that is what it is asked about.
    """
    folders = [folder_of(_state_of(config, environ), environ), _state_of(config, environ), _RUN / "batchd"]
    seen = set()
    for folder in (*folders, *sorted(_RUN.glob("batchd-*")), *sorted(_RUN.glob("batchd/*"))):
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("control*.sock")):
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    yield path


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Yield what to bind or connect to: the path, or a short way to it where the kernel's limit is exceeded."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def read_line(connection: socket.socket) -> str:
    """Return one line, without its end; raises OSError or ValueError when none comes."""
    text = b""
    while not text.endswith(b"\n"):
        if len(text) > LONGEST_LINE:
            raise ValueError("the line is too long")
        read = connection.recv(1 << 16)
        if not read:
            raise ValueError("the line has no end")
        text += read
    return text.decode()


def _state_of(config: Path, environ: Mapping[str, str]) -> Path:
    """Return the state folder that the config names, as far as it can be read at all."""
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    folder = config.resolve().parent
    try:
        text = config.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return Path(given) if given else folder / "var"
    try:
        daemon = tomllib.loads(text).get("daemon", {})
        named = daemon.get("state") if isinstance(daemon, dict) else None
    except (tomllib.TOMLDecodeError, RecursionError):
        found = _STATE.search(text)
        named = found[1] if found else None
    if isinstance(named, str):
        return folder / os.path.expandvars(os.path.expanduser(named))  # noqa: PTH111 (a text that may be no path)
    return Path(given) if given else folder / "var"
