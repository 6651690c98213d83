"""What systemd and this process say to each other, with the standard library alone (sd_notify(3), sd_listen_fds(3)).

`take_over` reads what the service manager handed over in the environment, and takes it out of there: what a job starts
must neither speak for the daemon, nor feed its watchdog, nor find its credentials. Nothing here ever raises: a daemon
that runs without systemd, or whose systemd does not answer, works all the same.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import timedelta

from batchd.clock import awake_microseconds

_FIRST_FD = 3  # sd_listen_fds(3)
_DATAGRAMS = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
_SEND_WITHIN_SECONDS = 1.0
_LONGEST_STATUS = 400
_JOURNAL = "/run/systemd/journal/socket"
_JOURNAL_BUFFER_BYTES = 8 << 20

CREDENTIALS = "CREDENTIALS_DIRECTORY"
HANDED_OVER = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    CREDENTIALS,
)
"""What systemd gives to the daemon alone, and no child of a job may inherit."""


@dataclass(frozen=True, slots=True)
class HandedSocket:
    """A listening socket of a .socket unit: its descriptor, and its FileDescriptorName=."""

    fd: int
    name: str


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """What systemd gave to this process; all of it empty when something else started it.

    `watchdog` is how long systemd waits for a sign of life before it kills the process; None when it does not.
    """

    notifier: Notifier
    watchdog: timedelta | None
    sockets: tuple[HandedSocket, ...]


class Notifier:
    """Tells systemd how the daemon is. Any thread may call any method; nothing is told where nobody listens."""

    def __init__(self, address: str | None) -> None:
        self._address = _address(address)
        self._status = ""
        self._is_reloading = False

    def ready(self, status: str) -> None:
        """Say that the start, or a reload, is over and good."""
        self._is_reloading = False
        self._send("READY=1", self._noted(status))

    def status(self, status: str) -> None:
        """Say in a sentence how things are; said again, nothing is sent."""
        if status != self._status:
            self._send(self._noted(status))

    def reloading(self, status: str) -> None:
        """Say that a reload begins; `ready` says that it is over, whatever came of it."""
        self._is_reloading = True
        self._send("RELOADING=1", f"MONOTONIC_USEC={awake_microseconds()}", self._noted(status))

    def stopping(self, status: str) -> None:
        """Say that the daemon stops. A reload that goes on is ended first: newer systemd takes no other order."""
        if self._is_reloading:
            self.ready(status)
        self._send("STOPPING=1", self._noted(status))

    def extend(self, time: timedelta) -> None:
        """Ask for more time to start or stop: systemd gives up when it hears nothing more for this long."""
        self._send(f"EXTEND_TIMEOUT_USEC={_microseconds(time)}")

    def feed(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _noted(self, status: str) -> str:
        self._status = status
        line = " ".join(status.split())
        return f"STATUS={line if len(line) <= _LONGEST_STATUS else line[: _LONGEST_STATUS - 1] + '…'}"

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        message = "\n".join(lines).encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, _DATAGRAMS) as sending:
            sending.settimeout(_SEND_WITHIN_SECONDS)
            sending.sendto(message, self._address)


class Journal:
    """systemd's journal, spoken to in its own protocol, in which a line has fields to search for.

    See systemd's "Native Journal Protocol". Any thread may call `send`.
    """

    def __init__(self, path: str = _JOURNAL) -> None:
        self._path = path
        self._socket = _to_journal()
        self._pid = os.getpid()

    def send(self, fields: Mapping[str, object]) -> bool:
        """Write one entry; return False when the journal did not take it, so that the caller writes it elsewhere."""
        entry = b"".join(_journal_field(name, str(value)) for name, value in fields.items())
        try:
            if self._pid != os.getpid():
                # A fork closes what it has inherited; the number may be that of a connection by now.
                self._socket.detach()
                self._socket, self._pid = _to_journal(), os.getpid()
            self._socket.sendto(entry, self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Say no more."""
        self._socket.close()


@functools.cache
def journal() -> Journal:
    """Return this process's way to the journal."""
    return Journal()


def take_over(environ: MutableMapping[str, str] = os.environ) -> ServiceManager:
    """Return what systemd handed over, and take it out of the environment. Call it once, before any job starts."""
    given = {name: environ.pop(name) for name in HANDED_OVER if name in environ}
    return ServiceManager(Notifier(given.get("NOTIFY_SOCKET")), _watchdog(given), tuple(_sockets(given)))


def is_journal(fd: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the descriptor goes straight to systemd's journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


def _address(given: str | None) -> str | None:
    """Return the address as the kernel takes it: one that begins with @ is abstract, its first byte is NUL."""
    if not given or given[0] not in "/@":
        return None
    return f"\0{given[1:]}" if given[0] == "@" else given


def _watchdog(given: Mapping[str, str]) -> timedelta | None:
    """Return the watchdog's time, None for one that is meant for another process (sd_watchdog_enabled(3))."""
    if given.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = _number(given.get("WATCHDOG_USEC"))
    return timedelta(microseconds=microseconds) if microseconds else None


def _sockets(given: Mapping[str, str]) -> Iterator[HandedSocket]:
    if given.get("LISTEN_PID") != str(os.getpid()):
        return
    names = given.get("LISTEN_FDNAMES", "").split(":")
    for place in range(_number(given.get("LISTEN_FDS"))):
        fd = _FIRST_FD + place
        try:
            os.set_inheritable(fd, False)
        except OSError:
            continue
        yield HandedSocket(fd, names[place] if place < len(names) else "unknown")


def _number(text: str | None) -> int:
    """Return the number, 0 for what is none."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def _microseconds(time: timedelta) -> int:
    return time // timedelta(microseconds=1)


def _to_journal() -> socket.socket:
    sending = socket.socket(socket.AF_UNIX, _DATAGRAMS)
    with contextlib.suppress(OSError):
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _JOURNAL_BUFFER_BYTES)
    return sending


def _journal_field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
