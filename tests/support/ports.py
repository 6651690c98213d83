"""Ports for servers that bind by themselves, some time after the port was chosen."""

from __future__ import annotations

import random
import socket

_BELOW_WHAT_CLIENTS_GET = range(10_000, 30_000)
"""Linux gives 32768 to 60999 to connections: one of any process could have a port from there before the server does."""


def free_port() -> int:
    """Return a port of this machine that nobody has, and that no connection will be given."""
    choose = random.SystemRandom()  # not the tests' own seed, which processes side by side may share
    while True:
        port = choose.choice(_BELOW_WHAT_CLIENTS_GET)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
