"""A team's own code in the lab: what it may do under the unit, and what it may not."""

from __future__ import annotations

import ctypes
import json
import os
import socket
from collections.abc import Callable, Sequence
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

from sqlalchemy import text

_NEW_USER_NAMESPACE = 0x10000000  # unshare(2)


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
        "becomes_root": lambda: os.setuid(0),
        "writes_etc": lambda: Path("/etc/batchd/of-the-service").write_text("x"),
        "reads_shadow": lambda: Path("/etc/shadow").read_text(),
        "lists_homes": lambda: list(Path("/home").iterdir()),
        "sees_process_1": lambda: Path("/proc/1/cmdline").read_text(),
        "makes_a_namespace": _make_a_namespace,
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


def _make_a_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_USER_NAMESPACE):
        raise OSError(ctypes.get_errno(), "unshare")
