"""A team's own code in the lab: what it may do under the unit, and what it may not."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

from sqlalchemy import text


def score(rows: Sequence[Any], connection: Any) -> None:
    """Write to each row."""
    for row in rows:
        scored = {"score": row["id"] * 10, "id": row["id"]}
        connection.execute(text("UPDATE people SET score = :score WHERE id = :id"), scored)


def look_around(into: str) -> None:
    """Write down what each attempt comes to: work that jobs do, and what the sandbox is there to prevent."""
    attempts: dict[str, Callable[[], object]] = {
        "shares_memory": lambda: shared_memory.SharedMemory(create=True, size=4096).unlink(),
        "writes_tmp": lambda: Path("/tmp/of-the-service").write_text("x"),
        "resolves_names": lambda: socket.getaddrinfo("localhost", 80),
        "is_nicer": lambda: os.nice(1),
        "reads_meminfo": lambda: Path("/proc/meminfo").read_text(),
        "runs_made_code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
        "becomes_root": lambda: os.setuid(0),
        "writes_etc": lambda: Path("/etc/batchd/of-the-service").write_text("x"),
        "reads_shadow": lambda: Path("/etc/shadow").read_text(),
        "lists_homes": lambda: list(Path("/home").iterdir()),
        "sees_process_1": lambda: Path("/proc/1/cmdline").read_text(),
        "writes_srv": lambda: Path("/srv/jobs/of-the-service").write_text("x"),
        "asks_about_the_network": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "makes_a_namespace": _make_a_namespace,
        "reaches_others": _reach_somebody_else,
        "speaks_for_the_daemon": lambda: os.environ["NOTIFY_SOCKET"],
        "finds_credentials": lambda: os.environ["CREDENTIALS_DIRECTORY"],
    }
    came_to = {name: _came_to(attempt) for name, attempt in attempts.items()}
    Path(into).write_text(json.dumps(came_to) + "\n")


def _came_to(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except Exception as error:  # noqa: BLE001 (what it came to is what is asked)
        return type(error).__name__
    return "done"


def _reach_somebody_else() -> None:
    """Have a packet reach an address beside 127.0.0.1, at which nobody listens."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("10.9.9.9", 9), timeout=2).close()


def _make_a_namespace() -> None:
    """Do what a sandbox does: be root in namespaces of one's own, and mount something there."""
    inside = ("sh", "-c", "mount -t tmpfs none /mnt")
    subprocess.run(["unshare", "--user", "--map-root-user", "--mount", *inside], check=True, capture_output=True)
