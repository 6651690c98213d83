"""The sample application database of `batchd demo`: a SQLite file that looks like a small application's.

It marks the file with an application id of its own and writes into no other database, for the demo's jobs delete rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batchd.db.engine import Database
from batchd.errors import CannotCreate, UsageError

_APPLICATION_ID = 0x62746364

_LOG_ROWS = 200_000
_LOG_DAYS = 90
_SESSIONS_OF_EACH = 10_000
_USERS = 10_000

_TABLES = (
    "users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL)",
    "logs (id INTEGER PRIMARY KEY, created_at TEXT NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL)",
    "sessions (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users, expires_at TEXT NOT NULL)",
    "people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, plan TEXT, seats INTEGER, gone_at TEXT)",
    "customers (no INTEGER PRIMARY KEY, company TEXT NOT NULL, city TEXT, revenue REAL, rating TEXT, imported_at TEXT)",
)

_INDEXES = (
    "logs_created_at ON logs (created_at)",
    "sessions_expires_at ON sessions (expires_at)",
)

_NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :wanted)"

_ADD_USERS = """
    INSERT OR IGNORE INTO users (id, email, created_at)
    SELECT i, 'user' || i || '@example.org', datetime('now', '-' || (i % 900) || ' days') FROM n
"""

_ADD_LOGS = """
    INSERT INTO logs (created_at, level, message)
    SELECT datetime('now', '-' || (:days * 86400 * (:wanted - i) / :wanted) || ' seconds'),
           CASE i % 20 WHEN 0 THEN 'error' WHEN 1 THEN 'warning' ELSE 'info' END,
           'GET /orders/' || (i * 7919 % 100000) || ' answered in ' || (i % 240) || ' ms'
    FROM n
"""

_ADD_SESSIONS = """
    INSERT INTO sessions (user_id, expires_at)
    SELECT 1 + i * 31 % :users, datetime('now', :sign || (i * 6) || ' minutes') FROM n
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """How many rows the sample database holds now, and how many of them were added."""

    logs: int
    sessions: int
    users: int
    added: int


def prepare_sample(database: Database) -> Sample:
    """Make the sample, or fill up what earlier demos cleaned away, in one transaction of about two seconds.

    Raises UsageError for a database that is not SQLite, or that holds tables which no demo made.
    """
    if database.dialect.name != "sqlite":
        raise UsageError(
            f"the demo writes sample rows into SQLite only, and [databases.{database.name}] is not SQLite",
            hint="run it on config.example.toml; for your own database there is `batchd run`",
        )
    file = Path(str(database.engine.url.database))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise CannotCreate(f"{file.parent}: {error.strerror}", hint="name another file in [databases.app]") from error
    with database.writing() as connection:

        def number(sql: str) -> int:
            return int(connection.exec_driver_sql(sql).scalar_one())

        tables = number("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'batchd_%'")
        if tables and number("PRAGMA application_id") != _APPLICATION_ID:
            raise UsageError(
                f"{file} holds tables of its own, and the demo's jobs delete rows",
                hint="name a file that does not exist in [databases.app]",
            )
        connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")
        for table in _TABLES:
            connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {table}")
        for index in _INDEXES:
            connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS {index}")
        fresh = number("SELECT count(*) FROM sessions WHERE expires_at >= datetime('now')")
        expired = number("SELECT count(*) FROM sessions") - fresh
        added = 0
        for statement, missing, values in (
            (_ADD_USERS, 0 if number("SELECT count(*) FROM users") >= _USERS else _USERS, {}),
            (_ADD_LOGS, _LOG_ROWS - number("SELECT count(*) FROM logs"), {"days": _LOG_DAYS}),
            (_ADD_SESSIONS, _SESSIONS_OF_EACH - fresh, {"users": _USERS, "sign": "+"}),
            (_ADD_SESSIONS, _SESSIONS_OF_EACH - expired, {"users": _USERS, "sign": "-"}),
        ):
            if missing > 0:
                connection.exec_driver_sql(_NUMBERS + statement, {"wanted": missing, **values})
                added += missing
        return Sample(
            logs=number("SELECT count(*) FROM logs"),
            sessions=number("SELECT count(*) FROM sessions"),
            users=number("SELECT count(*) FROM users"),
            added=added,
        )
