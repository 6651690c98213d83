"""Version 3: runs are queued from anywhere, with tags and metadata, and once within a period.

What SQL queues them with is made by version 12, which replaces what this one made before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from batchd.db.types import Json, UtcTimestamp

_RUNS_COMMENT = (
    "The ledger. attempt: attempts used up; fence: claims so far; losses: claims in a row that ended without "
    "a word and without progress; a missed row stands for fire_count fire times, "
    "scheduled_for to scheduled_until. "
    "parent_id: the run that queued this one, which may be pruned by now; child_key: what it is to that run. "
    "tags: a list of texts; metadata: an object; both are whatever the one who queued it wrote."
)


def upgrade() -> None:
    """Add the columns, and what is known of kinds and queues."""
    dialect = op.get_context().dialect.name
    op.add_column("batchd_runs", sa.Column("tags", Json, nullable=True))
    op.add_column("batchd_runs", sa.Column("metadata", Json, nullable=True))
    if dialect == "postgresql":
        op.create_table_comment("batchd_runs", _RUNS_COMMENT)
    op.create_index(
        "batchd_runs_unique_succeeded",
        "batchd_runs",
        ["unique_key", "created_at"],
        unique=False,
        postgresql_where=sa.text("state = 'succeeded' AND unique_key IS NOT NULL"),
        sqlite_where=sa.text("state = 'succeeded' AND unique_key IS NOT NULL"),
    )
    op.create_table(
        "batchd_catalog",
        sa.Column("sort", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("params", Json, nullable=True),
        sa.Column("seen_at", UtcTimestamp(), nullable=False),
        sa.CheckConstraint("sort IN ('kind', 'queue')", name="batchd_catalog_sort_check"),
        sa.PrimaryKeyConstraint("sort", "name", name="batchd_catalog_pkey"),
        comment=(
            "The kinds and queues that daemons know, so that whoever enqueues is told of a wrong name. "
            "params: of a kind the names that it takes (known; NULL: any), needs (required) and keeps secret (secret). "
            "seen_at: when a daemon with it started last."
        ),
    )
