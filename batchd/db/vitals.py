"""How a database is doing, in numbers: what each dialect can tell within one short connection."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from batchd.db.engine import file_of


@dataclass(frozen=True, slots=True)
class Vital:
    """One number (None: it could not be found out), with its unit: seconds, percent, bytes or problems."""

    name: str
    value: float | None
    unit: str


_POSTGRESQL = {
    ("connections", "percent"): """
        SELECT 100.0 * count(*) FILTER (WHERE backend_type = 'client backend')
               / (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int)
        FROM pg_stat_activity""",
    ("oldest_transaction", "seconds"): """
        SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()""",
    ("replication_lag", "seconds"): """
        SELECT CASE WHEN pg_is_in_recovery()
               THEN CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                    ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END
               ELSE (SELECT extract(epoch FROM max(coalesce(replay_lag, interval '0')))
                     FROM pg_stat_replication) END""",
    ("transaction_age", "percent"): "SELECT 100.0 * max(age(datfrozenxid)) / 2000000000 FROM pg_database",
    ("size", "bytes"): "SELECT pg_database_size(current_database())",
}
_ONLY_WHERE_THERE_IS_ONE = frozenset({"replication_lag"})


def vitals_of(connection: Connection, url: str) -> list[Vital]:
    """Return the vitals of the connection's database; raises driver errors."""
    if connection.dialect.name == "postgresql":
        return _postgresql(connection)
    return _sqlite(connection, Path(file_of(url) or ""))


def _postgresql(connection: Connection) -> list[Vital]:
    found = []
    for (name, unit), query in _POSTGRESQL.items():
        value = connection.execute(text(query)).scalar_one()
        if value is not None or name not in _ONLY_WHERE_THERE_IS_ONE:
            found.append(Vital(name, _number(value), unit))
    return found


def _sqlite(connection: Connection, file: Path) -> list[Vital]:
    disk = os.statvfs(file.parent)
    complaints = [row[0] for row in connection.execute(text("PRAGMA quick_check(10)")) if row[0] != "ok"]
    return [
        Vital("free_disk", float(disk.f_bavail * disk.f_frsize), "bytes"),
        Vital("size", float(file.stat().st_size), "bytes"),
        Vital("quick_check", float(len(complaints)), "problems"),
    ]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
