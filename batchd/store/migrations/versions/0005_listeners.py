"""Version 5: listeners of events, runs that follow runs, and batches that go on when all of them succeeded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from batchd.db.types import BigId, Json, UtcTimestamp


def upgrade() -> None:
    """Add the table of listeners, and what a run that has ended is followed by."""
    op.add_column("batchd_schedules", sa.Column("then_run", Json, nullable=True))
    op.add_column("batchd_runs", sa.Column("after_id", BigId, nullable=True))
    op.add_column("batchd_fan_outs", sa.Column("on_success", Json, nullable=True))
    op.add_column("batchd_fan_outs", sa.Column("on_success_run_id", BigId, nullable=True))
    op.create_table(
        "batchd_listeners",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("wants_started", sa.Boolean(), nullable=False),
        sa.Column("wants_progressed", sa.Boolean(), nullable=False),
        sa.Column("last_id", BigId, nullable=False),
        sa.Column("fence", BigId, server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.String(), nullable=True),
        sa.Column("lease_until", UtcTimestamp(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("lost", BigId, server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", UtcTimestamp(), nullable=False),
        sa.Column("seen_at", UtcTimestamp(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="batchd_listeners_pkey"),
        comment=(
            "Functions that are called with events. last_id: all of the outbox up to there is delivered; "
            "failures, error: of the event that it cannot get past; lost: events that retention took before it had "
            "them; seen_at: when a daemon last had it."
        ),
    )
    if op.get_context().dialect.name == "postgresql":
        for table, comment in _COMMENTS.items():
            op.create_table_comment(table, comment)


_COMMENTS = {
    "batchd_schedules": (
        "One row a job of the config. error: why its schedule cannot be planned, NULL when all is well. "
        "limit_key: a run's key, with {param} in place of a parameter; keep: seconds by state, over the daemon's; "
        "then_run: what is queued when a run of it succeeds."
    ),
    "batchd_runs": (
        "The ledger. attempt: attempts used up; fence: claims so far; losses: claims in a row that ended without "
        "a word and without progress; a missed row stands for fire_count fire times, scheduled_for to scheduled_until. "
        "parent_id: the run that queued this one, which may be pruned by now; child_key: what it is to that run. "
        "tags: a list of texts; metadata: an object; both are whatever the one who queued it wrote. "
        "waits_for: the mutex or the key whose limit was full when the run's turn came; it is left alone until then. "
        "after_id: the run that this one follows, by `then`, `on_complete` or `on_success`."
    ),
    "batchd_fan_outs": (
        "Runs that queue runs. closed_at: all children are queued; done_at: it and all its children are final; "
        "on_complete: the run to queue then, once; on_success: likewise, when all of them succeeded."
    ),
    "batchd_outbox": (
        "One row a state change, committed with it; listeners and the dashboard read it, retention prunes it."
    ),
}
