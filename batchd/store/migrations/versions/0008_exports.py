"""Version 8: the list of exports, newest first, from an index of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    """Add the index; it holds runs of one kind only."""
    where = sa.text("kind = 'csv_export'")
    op.create_index(
        "batchd_runs_exports", "batchd_runs", [sa.text("id DESC")], postgresql_where=where, sqlite_where=where
    )
