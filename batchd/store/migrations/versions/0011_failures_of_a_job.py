"""Version 11: a job's runs that did not succeed, newest first, from an index of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    """Add the index; it holds what is not usual, so that most runs do not pay for it."""
    where = sa.text("state IN ('failed', 'skipped', 'missed', 'cancelled', 'quarantined')")
    op.create_index(
        "batchd_runs_exceptional_of_job",
        "batchd_runs",
        ["schedule_id", "state", "id"],
        postgresql_where=where,
        sqlite_where=where,
    )
