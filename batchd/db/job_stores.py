"""Reading another scheduler's table of jobs: (id, next run, blob) as they stand, and nothing is changed by looking."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database, file_of
from batchd.errors import UsageError

JobRow = tuple[str, float | None, bytes]
"""Id, next run in seconds since 1970 (None: paused), and what the other scheduler has pickled."""

_SQL = "SELECT id, next_run_time, job_state FROM apscheduler_jobs ORDER BY next_run_time, id"
_TIMEOUT = timedelta(seconds=10)


def job_store_rows(url: str) -> list[JobRow]:
    """Return the rows of APScheduler's `apscheduler_jobs`; raises UsageError or DatabaseUnavailable.

    `url` is that of a database, or the path of a SQLite file, which is opened for reading only: not
    even its journal mode changes.
    """
    if "://" not in url:
        return _from_file(Path(url))
    file = file_of(url)
    if file is not None:
        return _from_file(Path(file))
    database = Database(DatabaseSettings("the job store", url, 1, _TIMEOUT, _TIMEOUT, _TIMEOUT))
    try:
        with database.reading() as connection:
            return _rows(connection.execute(text(_SQL)).all())
    finally:
        database.close()


def _from_file(path: Path) -> list[JobRow]:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            return _rows(connection.execute(_SQL).fetchall())
    except sqlite3.Error as error:
        hint = "a job store of APScheduler 3 has a table apscheduler_jobs; one of another name cannot be read"
        raise UsageError(f"{path}: no job store that batchd can read: {error}", hint=hint) from None


def _rows(found: Sequence[Any]) -> list[JobRow]:
    return [
        (str(row[0]), float(row[1]) if isinstance(row[1], int | float) else None, bytes(row[2] or b"")) for row in found
    ]
