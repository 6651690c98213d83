"""The indexes of the dashboard: a job's history and the runs that did not succeed, however long the ledger is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    """Add the indexes; the one on endings gets the state, so that a day is counted without reading its runs."""
    op.drop_index("batchd_runs_finished", "batchd_runs")
    op.create_index("batchd_runs_finished", "batchd_runs", ["finished_at", "state"])
    for name, columns, condition in _PARTIAL:
        where = sa.text(condition)
        op.create_index(name, "batchd_runs", columns, postgresql_where=where, sqlite_where=where)


_PARTIAL = (
    (
        "batchd_runs_ended",
        ["schedule_id", "finished_at", "state", "started_at"],
        "finished_at IS NOT NULL AND schedule_id IS NOT NULL",
    ),
    (
        "batchd_runs_exceptional",
        ["state", "id"],
        "state IN ('failed', 'skipped', 'missed', 'cancelled', 'quarantined')",
    ),
)
