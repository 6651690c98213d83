"""An application's table with rows that a cleanup may delete, and rows that it may not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, DateTime, Index, Integer, MetaData, String, Table, func, insert, select

from batchd.db.engine import Database
from tests.support.databases import open_database

GOES = "goes"
STAYS = "stays"

victims = Table(
    "victims",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("keep", Integer, nullable=False),
    Column("note", String(10), nullable=False),
)
Index("victims_created_at", victims.c.created_at)

CLEANUP = {
    "kind": "cleanup",
    "database": "app",
    "table": "victims",
    "column": "created_at",
    "older_than": "30d",
    "where": "keep = 0",
    "batch_size": 50,
    "pause": "20ms",
}
"""A job that deletes the rows that go, in many small chunks, so that there is time to disturb it."""


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """Open a database for the length of the block."""
    database = open_database(url)
    try:
        yield database
    finally:
        database.close()


def make_victims(url: str, *, staying: int = 1_000, going: int = 0) -> None:
    """Make the table. Half of the rows that stay are young, the others old but excepted by `keep`."""
    now = datetime.now(UTC)
    rows = [
        {"created_at": now - timedelta(days=60 if number % 2 else 1), "keep": number % 2, "note": STAYS}
        for number in range(staying)
    ]
    with opened(url) as database:
        victims.metadata.create_all(database.engine)
        with database.writing() as connection:
            connection.execute(insert(victims), rows)
    if going:
        add_victims(url, going)


def add_victims(url: str, count: int) -> None:
    """Add rows that cleanup must delete."""
    old = datetime.now(UTC) - timedelta(days=60)
    rows = [{"created_at": old - timedelta(seconds=n), "keep": 0, "note": GOES} for n in range(count)]
    with opened(url) as database, database.writing() as connection:
        connection.execute(insert(victims), rows)


def count_victims(url: str, note: str) -> int:
    """Return how many rows of that note are left."""
    with opened(url) as database, database.reading() as connection:
        return connection.execute(select(func.count()).select_from(victims).where(victims.c.note == note)).scalar_one()
