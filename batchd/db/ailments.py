"""What a database can tell about its own health, for `batchd doctor`: each question is short and changes nothing."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, text

from batchd.db.engine import Database
from batchd.db.postgresql_session import is_pooled

_DEAD_TUPLES = """
SELECT schemaname || '.' || relname, n_dead_tup, n_live_tup, last_autovacuum IS NOT NULL OR last_vacuum IS NOT NULL,
       coalesce((SELECT c.reloptions::text LIKE '%autovacuum_enabled=false%'
                 FROM pg_class c WHERE c.oid = relid), false)
FROM pg_stat_user_tables
WHERE n_dead_tup > 10000 AND n_dead_tup > 0.2 * n_live_tup
ORDER BY n_dead_tup DESC LIMIT 10
"""
_INVALID_INDEXES = """
SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1 LIMIT 10
"""
_SETTINGS = ("autovacuum", "track_counts", "max_connections", "idle_in_transaction_session_timeout", "fsync")
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class DeadRows:
    """A table full of rows that nobody sees any more; `is_vacuumed`: ever; `is_disabled`: autovacuum is off for it."""

    table: str
    dead: int
    live: int
    is_vacuumed: bool
    is_disabled: bool


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server as seen through one connection; `pooler`: None, `session` or `transaction`."""

    version: int
    settings: dict[str, str]
    dead_rows: tuple[DeadRows, ...]
    invalid_indexes: tuple[str, ...]
    pooler: str | None


def clock_of(database: Database) -> datetime:
    """Return what the database's clock says."""
    with database.reading() as connection:
        now: datetime = connection.execute(select(database.dialect.now())).scalar_one()
    return now


def server_of(database: Database) -> Server:
    """Return what a PostgreSQL server says of itself."""
    with database.reading() as connection:
        version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        settings = {name: str(connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in _SETTINGS}
        dead = [DeadRows(*row) for row in connection.exec_driver_sql(_DEAD_TUPLES.replace("%", "%%")).all()]
        invalid = list(connection.exec_driver_sql(_INVALID_INDEXES).scalars())
        has_pooler = is_pooled(connection)
    pooler = ("transaction" if _forgets_its_session(database) else "session") if has_pooler else None
    return Server(version, settings, tuple(dead), tuple(invalid), pooler)


def file_of_sqlite(database: Database) -> tuple[str, str]:
    """Return SQLite's version and its journal mode."""
    with database.reading() as connection:
        version = str(connection.exec_driver_sql("SELECT sqlite_version()").scalar_one())
        mode = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())
    return version, mode


def _forgets_its_session(database: Database) -> bool:
    """Return whether a setting of the session gets lost, or is found by another client; one look may be luck."""
    probe = uuid.uuid4().hex  # a pooler's servers may still know that of an earlier look
    with (
        contextlib.closing(Database(database.settings)) as elsewhere,
        database.engine.connect() as first,
        elsewhere.engine.connect() as other,
    ):
        first.exec_driver_sql(f"SELECT set_config('batchd.probe', '{probe}', false)")
        first.commit()
        for _ in range(_LOOKS):
            if _probe_of(other) == probe or _probe_of(first) != probe:
                return True
    return False


def _probe_of(connection: Connection) -> str | None:
    said: str | None = connection.exec_driver_sql("SELECT current_setting('batchd.probe', true)").scalar_one()
    connection.rollback()
    return said
