"""Opens a `Database` for a test."""

from __future__ import annotations

from datetime import timedelta

from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database


def open_database(url: str, *, name: str = "test", pool_size: int = 10, is_store: bool = False) -> Database:
    """Return a `Database` with time limits that suit a test; close it."""
    return Database(
        DatabaseSettings(
            name=name,
            url=url,
            pool_size=pool_size,
            connect_timeout=timedelta(seconds=5),
            statement_timeout=timedelta(seconds=30),
            lock_timeout=timedelta(seconds=5),
            is_store=is_store,
        )
    )
