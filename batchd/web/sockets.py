"""The listening socket: opened by the daemon, so that a restart of the server loses no connection."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from batchd.domain.surface import Listen, Systemd, Tcp, UnixSocket
from batchd.errors import CannotCreate
from batchd.systemd import HandedSocket

_BACKLOG = 512
_MODE = 0o660


def open_listener(listen: Listen, handed: Sequence[HandedSocket] = ()) -> socket.socket:
    """Return the socket, listening; raises CannotCreate with what is in the way. `handed` are those of systemd."""
    match listen:
        case Tcp():
            return _tcp(listen)
        case UnixSocket():
            return _unix(Path(listen.path))
        case Systemd():
            return _handed_over(handed)


def remove_socket(listen: Listen) -> None:
    """Take the file of a Unix socket away; what systemd made is left to it."""
    if isinstance(listen, UnixSocket):
        with contextlib.suppress(OSError):
            Path(listen.path).unlink()


def _tcp(listen: Tcp) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise CannotCreate(
            f"[http] cannot listen on {listen}: {error.strerror or error}",
            hint="another program may have the port; choose another one in [http] listen",
        ) from error
    return listener


def _unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        mask = os.umask(0o777 & ~_MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotCreate(
            f"[http] cannot listen on {path}: {error.strerror or error}",
            hint="its folder must exist and belong to this user (systemd: RuntimeDirectory=batchd)",
        ) from error
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more; anything else is in the way."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(0, "there is a file of this name, and it is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
        raise FileExistsError(0, "somebody listens there already")


def _handed_over(handed: Sequence[HandedSocket]) -> socket.socket:
    """Return the socket that is called `http`, or the first one."""
    if not handed:
        raise CannotCreate(
            '[http] listen is "systemd", and systemd has handed over no socket',
            hint="start batchd.socket, which starts the service; or set [http] listen to an address",
        )
    chosen = next((each for each in handed if each.name == "http"), handed[0])
    return socket.socket(fileno=chosen.fd)
