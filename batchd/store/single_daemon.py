"""One daemon for one SQLite store: a lock that the kernel gives back when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from batchd.db.engine import Database
from batchd.errors import AlreadyRunning, CannotCreate


@contextlib.contextmanager
def hold_sqlite_lock(store: Database) -> Iterator[None]:
    """Hold `FILE.lock` beside a SQLite store until the block ends; do nothing for PostgreSQL.

    Makes the folder of the file. Raises AlreadyRunning when another daemon holds the lock, CannotCreate when the
    folder or the lock cannot be made.
    """
    file = store.engine.url.database
    if store.dialect.name != "sqlite" or not file or file == ":memory:":
        yield
        return
    path = Path(file + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CannotCreate(
            f"cannot create {path}: {error.strerror}",
            hint="set [daemon] state to a folder that this user may write to",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = path.read_text(encoding="ascii", errors="replace").strip() or "unknown"
            raise AlreadyRunning(
                f"another daemon (pid {holder}) already runs on {file}",
                hint="stop it first; several daemons can share a store on PostgreSQL, not one on SQLite",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
