"""Version 2: runs that queue runs, and indexes that keep claims fast while very many runs wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from batchd.db.types import BigId, Json, UtcTimestamp

_RUNS_COMMENT = (
    "The ledger. attempt: attempts used up; fence: claims so far; losses: claims in a row that ended without "
    "a word and without progress; a missed row stands for fire_count fire times, "
    "scheduled_for to scheduled_until. "
    "parent_id: the run that queued this one, which may be pruned by now; child_key: what it is to that run."
)


def upgrade() -> None:
    """Add the columns, the indexes that guard them, and the table of fan-outs."""
    op.add_column("batchd_runs", sa.Column("parent_id", BigId, nullable=True))
    op.add_column("batchd_runs", sa.Column("child_key", sa.Text(), nullable=True))
    if op.get_context().dialect.name == "postgresql":
        op.create_table_comment("batchd_runs", _RUNS_COMMENT)
    op.create_index(
        "batchd_runs_child",
        "batchd_runs",
        ["parent_id", "child_key"],
        unique=True,
        postgresql_where=sa.text("parent_id IS NOT NULL"),
        sqlite_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_index(
        "batchd_runs_unfinished_child",
        "batchd_runs",
        ["parent_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running') AND parent_id IS NOT NULL"),
        sqlite_where=sa.text("state IN ('queued', 'running') AND parent_id IS NOT NULL"),
    )
    op.drop_index("batchd_runs_claim", table_name="batchd_runs")
    op.create_index(
        "batchd_runs_claim",
        "batchd_runs",
        ["queue", sa.literal_column("priority DESC"), "available_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
        sqlite_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "batchd_runs_available",
        "batchd_runs",
        ["available_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
        sqlite_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "batchd_fan_outs",
        sa.Column("run_id", BigId, autoincrement=False, nullable=False),
        sa.Column("on_complete", Json, nullable=True),
        sa.Column("created_at", UtcTimestamp(), nullable=False),
        sa.Column("closed_at", UtcTimestamp(), nullable=True),
        sa.Column("done_at", UtcTimestamp(), nullable=True),
        sa.Column("on_complete_run_id", BigId, nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["batchd_runs.id"], name="batchd_fan_outs_run_id_fkey", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", name="batchd_fan_outs_pkey"),
        comment=(
            "Runs that queue runs. closed_at: all children are queued; done_at: it and all its children are final; "
            "on_complete: the run to queue then, once."
        ),
    )
    op.create_index(
        "batchd_fan_outs_open",
        "batchd_fan_outs",
        ["run_id"],
        unique=False,
        postgresql_where=sa.text("done_at IS NULL"),
        sqlite_where=sa.text("done_at IS NULL"),
    )
