"""Who is alive: one row a daemon."""

from __future__ import annotations

import contextlib
import os
import platform
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select, update

from batchd import __version__
from batchd.db.engine import Database
from batchd.domain.run import EXTERNAL_KIND
from batchd.store import outbox
from batchd.store.alert_schema import alert_channels
from batchd.store.schema import SCHEMA_VERSION, listeners, meta, runs, workers

DAEMON_LOST = "daemon.lost"
"""What the outbox is told of a daemon that ended without a word."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A daemon process, told apart from every other one, also from a later one that got the same pid."""

    id: str
    host: str
    pid: int
    boot_id: str
    pid_namespace: str
    process_started: int
    version: str


def this_process() -> WorkerIdentity:
    """Return a fresh identity for this process."""
    pid = os.getpid()
    host = platform.node()
    return WorkerIdentity(
        id=f"{host}-{pid}-{uuid.uuid4().hex[:8]}",
        host=host,
        pid=pid,
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        process_started=_process_started(pid) or 0,
        version=__version__,
    )


def register(store: Database, worker: WorkerIdentity, *, slots: int) -> None:
    """Write the worker's row; once more is no harm."""
    with store.writing() as connection:
        connection.execute(
            store.dialect.insert(workers)
            .on_conflict_do_nothing(index_elements=[workers.c.id])
            .values(
                id=worker.id,
                host=worker.host,
                pid=worker.pid,
                boot_id=worker.boot_id,
                pid_namespace=worker.pid_namespace,
                process_started=worker.process_started,
                version=worker.version,
                schema_version=SCHEMA_VERSION,
                slots=slots,
                state="running",
                started_at=store.dialect.now(),
                heartbeat_at=store.dialect.now(),
            )
        )


def beat(
    store: Database, worker_id: str, *, state: str, config_error: str | None = None, slots: int | None = None
) -> int | None:
    """Say that the worker is alive and whether it is `running`, `draining` or `stopped`.

    Return the version of the store's tables (0: it does not say), which a newer batchd may have changed meanwhile; None
    when the store does not know the worker. `config_error` says why the config that it was last asked to read was
    refused; `slots` is how many threads it has, None: as many as before.
    """
    told: dict[str, Any] = {"state": state, "config_error": config_error, "heartbeat_at": store.dialect.now()}
    if slots is not None:
        told["slots"] = slots
    version = select(meta.c.value).where(meta.c.key == "schema_version").scalar_subquery()
    with store.writing() as connection:
        row = connection.execute(
            update(workers).where(workers.c.id == worker_id).values(told).returning(version)
        ).one_or_none()
    return None if row is None else int(row[0] or 0)


def provably_dead(store: Database, me: WorkerIdentity, *, all_others: bool) -> tuple[str, ...]:
    """Return the ids of workers that hold runs or say that they run, and cannot be alive.

    `all_others` is for a store that only one daemon can hold (SQLite's lock). Else a worker is dead for sure when it
    ran under this kernel and pid namespace, and its pid is gone or belongs to a process that started at another time.
    """
    with store.reading() as connection:
        rows = connection.execute(select(workers).where(workers.c.id != me.id, workers.c.state != "stopped")).all()
        holders = set(
            # Who only reports a run is no daemon: SQLite's lock says nothing of it, its lease does.
            connection.execute(
                select(runs.c.worker).where(runs.c.state == "running", runs.c.kind != EXTERNAL_KIND).distinct()
            )
            .scalars()
            .all()
        )
    known = {row.id for row in rows}
    dead = {row.id for row in rows if all_others or _is_gone(row, me)}
    orphans = {holder for holder in holders - known - {me.id} if holder is not None} if all_others else set()
    return tuple(sorted(dead | orphans))


def mark_stopped(store: Database, worker_ids: tuple[str, ...]) -> None:
    """Say of dead workers that they have stopped, tell of it, and let others have what they served."""
    with store.writing() as connection:
        lost = connection.execute(
            update(workers)
            .where(workers.c.id.in_(worker_ids), workers.c.state != "stopped")
            .values(state="stopped")
            .returning(workers.c.id, workers.c.host, workers.c.heartbeat_at)
        ).all()
        for table in (listeners, alert_channels):
            connection.execute(
                update(table).where(table.c.worker.in_(worker_ids)).values(worker=None, lease_until=None)
            )
        for row in lost:
            facts = {"worker": row.id, "host": row.host, "heartbeat_at": row.heartbeat_at.isoformat()}
            outbox.add(connection, store, DAEMON_LOST, None, None, facts)


def _is_gone(row: Row[Any], me: WorkerIdentity) -> bool:
    same_kernel = row.boot_id == me.boot_id and row.pid_namespace == me.pid_namespace
    return same_kernel and bool(me.boot_id) and _process_started(row.pid) != row.process_started


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _pid_namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _process_started(pid: int) -> int | None:
    """Return the start in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)), None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
