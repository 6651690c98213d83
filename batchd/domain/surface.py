"""What the HTTP surface needs to know of the config, and where it listens."""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias
from urllib.parse import urlsplit

from batchd.domain.queue import Rate

_TCP = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]/\s]*)):(?P<port>\d{1,5})")
_LARGEST_PORT = 65_535
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 (named to be left out)
DEFAULT_RATE = Rate(6000, timedelta(minutes=1))
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Phase(enum.IntEnum):
    """What the daemon is about."""

    STARTING = 0
    SERVING = 1
    DRAINING = 2


@dataclass(frozen=True, slots=True)
class Tcp:
    """A host (a name or an address without brackets) and a port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A socket file that the daemon's user and group may use."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Systemd:
    """The socket that systemd hands over (a `.socket` unit)."""

    def __str__(self) -> str:
        return "systemd"


Listen: TypeAlias = Tcp | UnixSocket | Systemd


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`[http]`, checked. `hosts` are the names (without port, lower case) that a request may be addressed to."""

    listen: Listen
    hosts: frozenset[str] = LOCAL_HOSTS
    public_origin: str | None = None
    trusted_proxies: frozenset[str] = frozenset()
    metrics_open: bool = False
    cron_secret: str | None = field(default=None, repr=False)
    rate: Rate = DEFAULT_RATE
    largest_body: int = 65_536
    session_length: timedelta = timedelta(hours=12)
    most_listeners: int = 500
    keep_audit: timedelta = timedelta(days=365)

    @property
    def is_exposed(self) -> bool:
        """Whether somebody on another machine may reach it without a proxy of this one (systemd: nobody can tell)."""
        return isinstance(self.listen, Tcp) and not self.listen.is_loopback

    @property
    def needs_secure_cookie(self) -> bool:
        """Whether browsers reach it over TLS or on this machine, so that a `Secure` cookie comes back."""
        if self.public_origin is None or self.public_origin.startswith("https://"):
            return True
        return f"{urlsplit(self.public_origin).hostname}" in {"localhost", "127.0.0.1", "::1"}


def parse_listen(text: str) -> Listen:
    """Return where to listen: "HOST:PORT", "[::1]:PORT", "unix:PATH" or "systemd"; raises ValueError."""
    if text == "systemd":
        return Systemd()
    if text.startswith("unix:") and text != "unix:":
        return UnixSocket(text.removeprefix("unix:"))
    matched = _TCP.fullmatch(text)
    if matched is None or int(matched["port"]) > _LARGEST_PORT or not (matched["v6"] or matched["host"]):
        raise ValueError('must be "HOST:PORT", "unix:/PATH" or "systemd"')
    return Tcp(matched["v6"] or matched["host"], int(matched["port"]))


def own_hosts(listen: Listen) -> frozenset[str]:
    """Return the name by which requests are addressed to where it listens; an address of all interfaces is no name."""
    if not isinstance(listen, Tcp) or listen.host in _WILDCARDS:
        return frozenset()
    return frozenset({host_of(str(listen))})


def host_of(header: str) -> str:
    """Return the host in a Host header, lower case and without its port; a v6 address keeps its brackets."""
    name, _, port = header.strip().lower().rpartition(":")
    return name if name and port.isdigit() and (not name.startswith("[") or name.endswith("]")) else header.lower()
