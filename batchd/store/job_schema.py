"""The tables that stand in each database that a job changes, so that what they hold commits with its work."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, PrimaryKeyConstraint, String, Table, Text

from batchd.db.types import BigId, Json, UtcTimestamp

checkpoint_metadata = MetaData()

checkpoints = Table(
    "batchd_checkpoints",
    checkpoint_metadata,
    Column("store_id", String(36), nullable=False),
    Column("run_id", BigId, nullable=False),
    Column("fence", BigId, nullable=False),
    Column("state", Json),
    Column("updated_at", UtcTimestamp, nullable=False),
    PrimaryKeyConstraint("store_id", "run_id"),
    comment="Resume points of unfinished runs, in the database that the job changes, so that both commit together.",
)

rejects = Table(
    "batchd_rejects",
    checkpoint_metadata,
    Column("store_id", String(36), nullable=False),
    Column("run_id", BigId, nullable=False),
    Column("number", Integer, nullable=False),
    Column("fence", BigId, nullable=False),
    Column("source", Text, nullable=False),
    Column("position", BigId, nullable=False),
    Column("key", Text),
    Column("reason", Text, nullable=False),
    Column("record", Json),
    Column("at", UtcTimestamp, nullable=False),
    PrimaryKeyConstraint("store_id", "run_id", "number"),
    comment="Records that a run could not take: position is a line or a record's number. Bounded per run.",
)

watermarks = Table(
    "batchd_watermarks",
    checkpoint_metadata,
    Column("store_id", String(36), nullable=False),
    Column("job", String, nullable=False),
    Column("state", Json, nullable=False),
    Column("run_id", BigId, nullable=False),
    Column("updated_at", UtcTimestamp, nullable=False),
    PrimaryKeyConstraint("store_id", "job"),
    comment="What a job's last run left for the next one (how far a sync has come); delete the row to begin anew.",
)
