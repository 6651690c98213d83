"""The table of what may be enqueued."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, PrimaryKeyConstraint, String, Table

from batchd.db.types import Json, UtcTimestamp
from batchd.store.schema import metadata

catalog = Table(
    "batchd_catalog",
    metadata,
    Column("sort", String, nullable=False),
    Column("name", String, nullable=False),
    Column("params", Json),
    Column("seen_at", UtcTimestamp, nullable=False),
    PrimaryKeyConstraint("sort", "name"),
    CheckConstraint("sort IN ('kind', 'queue')", name="sort"),
    comment=(
        "The kinds and queues that daemons know, so that whoever enqueues is told of a wrong name. "
        "params: of a kind the names that it takes (known; NULL: any), needs (required) and keeps secret (secret). "
        "seen_at: when a daemon with it started last."
    ),
)
