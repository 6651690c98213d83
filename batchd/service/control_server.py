"""The daemon's ear: a socket on this machine over which `batchd reload` asks, and SIGHUP, which asks the same.

The socket has mode 0660, so that the daemon's group may use it; who asks is checked again by the credentials that the
kernel vouches for (SO_PEERCRED), and named in the log. One question is answered after the other, on one thread.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import socket
import struct
import threading
from pathlib import Path

from batchd.errors import CannotCreate
from batchd.service.control_socket import NAME, address_of, read_line
from batchd.service.reload import Reload
from batchd.telemetry.logs import get_logger

_READ_WITHIN_SECONDS = 2.0
_ANSWER_WITHIN_SECONDS = 5.0
_WAITING = 16
_CREDENTIALS = struct.Struct("3i")
_SO_PEERGROUPS = 59  # socket(7); the standard library has no name for it
_MOST_GROUPS_BYTES = 4 << 12


class ControlServer:
    """Answers until `stop`. `ask` may be called from any thread, `start` and `stop` belong to the main thread."""

    name = "control"

    def __init__(self, folder: Path, config: Path, reload: Reload) -> None:
        self._folder = folder
        self._config = config.absolute()
        self._reload = reload
        self._log = get_logger()
        self._path: Path | None = None
        self._listener: socket.socket | None = None
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._serve, name="batchd-control", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Listen; where no socket can be made, that is logged, and SIGHUP is heard all the same."""
        try:
            self._path, self._listener = _listen(self._folder)
        except (OSError, CannotCreate) as error:
            said = error.message if isinstance(error, CannotCreate) else f"{error.strerror}: {self._folder / NAME}"
            self._log.warning("control.unavailable", reason=said)
        self._thread.start()

    def ask(self) -> None:
        """Reload soon, because of a SIGHUP; asked again before it began, it is done once."""
        with contextlib.suppress(OSError):
            self._waker.send(b"\n")

    def stop(self) -> None:
        """Take the socket away. A reload under way is not waited for."""
        self._is_stopping = True
        self.ask()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack:
            for each in (self._woken, self._waker, *([self._listener] if self._listener else [])):
                stack.enter_context(each)
            self._hear(stack.enter_context(selectors.DefaultSelector()))

    def _hear(self, selector: selectors.BaseSelector) -> None:
        selector.register(self._woken, selectors.EVENT_READ)
        if self._listener is not None:
            selector.register(self._listener, selectors.EVENT_READ)
        while not self._is_stopping:
            for key, _ in selector.select():
                if key.fileobj is self._woken:
                    self._woken.recv(1 << 12)
                    if not self._is_stopping:
                        self._reload("SIGHUP")
                else:
                    self._accept()

    def _accept(self) -> None:
        assert self._listener
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            try:
                connection.settimeout(_READ_WITHIN_SECONDS)
                answer = self._answer(connection)
                connection.settimeout(_ANSWER_WITHIN_SECONDS)
                connection.sendall(answer.encode() + b"\n")
            except (OSError, ValueError) as error:
                self._log.debug("control.broken_off", reason=str(error))  # whoever asked has the logs

    def _answer(self, connection: socket.socket) -> str:
        asked_by = _peer(connection)
        if asked_by is None:
            self._log.warning("control.denied")
            return _error("denied", "only root, the daemon's user and its group may ask")
        try:
            asked = json.loads(read_line(connection))
        except (json.JSONDecodeError, RecursionError):
            return _error("not_understood", "a question is one line of JSON")
        if not isinstance(asked, dict) or asked.get("command") != "reload":
            return _error("not_understood", 'there is one command: {"command": "reload", "config": "/path"}')
        if not self._is_mine(asked.get("config")):
            return _error("other_config", f"this daemon runs {self._config}")
        return self._reload(asked_by).as_json()

    def _is_mine(self, config: object) -> bool:
        return isinstance(config, str) and "\0" not in config and Path(config).resolve() == self._config.resolve()


def _error(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}})


def _listen(folder: Path) -> tuple[Path, socket.socket]:
    """Return a new listening socket in the folder, under a name of its own where another daemon has the usual one."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    for name in (NAME, f"control-{os.getpid()}.sock"):
        path = folder / name
        if _is_dead(path):
            path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listener.fileno(), 0o660)
            with address_of(path) as address:
                listener.bind(address)
            path.chmod(0o660)
            listener.listen(_WAITING)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return path, listener
    raise CannotCreate(f"another daemon has {folder / NAME}")


def _is_dead(path: Path) -> bool:
    """Return whether the socket is what a daemon left behind that is gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(FileNotFoundError):
        try:
            with address_of(path) as address:
                probe.connect(address)
        except ConnectionRefusedError:
            return True
    return False


def _peer(connection: socket.socket) -> str | None:
    """Return who asks, for the log; None for one who may not, whatever the socket's mode has become."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(packed)
    if uid in {0, os.geteuid()} or os.getegid() in {gid, *_peer_groups(connection)}:
        return f"uid {uid}, pid {pid}"
    return None


def _peer_groups(connection: socket.socket) -> tuple[int, ...]:
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS_BYTES)
    except OSError:
        return ()
    return struct.unpack(f"{len(packed) // 4}I", packed[: len(packed) // 4 * 4])
