"""Version 1: the first tables, and the store's own uuid."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from batchd.db.types import BigId, Json, UtcTimestamp

_NEW_UUID = {
    "postgresql": "gen_random_uuid()::text",
    "sqlite": (
        "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a'"
        " || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))"
    ),
}


def upgrade() -> None:
    """Make the tables in an order that foreign keys allow."""
    _make_meta()
    _make_schedules()
    _make_runs()
    _make_attempts()
    _make_log_lines()
    _make_outbox()
    _make_workers()
    facts = sa.table("batchd_meta", sa.column("key"), sa.column("value"))
    new_uuid = sa.text(_NEW_UUID[op.get_context().dialect.name])
    op.execute(facts.insert().values(key=sa.text("'store_id'"), value=new_uuid))


def _make_meta() -> None:
    op.create_table(
        "batchd_meta",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="batchd_meta_pkey"),
        comment="Facts about the store itself: store_id (a uuid), schema_version.",
    )


def _make_schedules() -> None:
    op.create_table(
        "batchd_schedules",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=True),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("params", Json, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_run_at", UtcTimestamp(), nullable=True),
        sa.Column("paused_at", UtcTimestamp(), nullable=True),
        sa.Column("removed_at", UtcTimestamp(), nullable=True),
        sa.Column("catch_up", sa.String(), nullable=False),
        sa.Column("catch_up_max_runs", sa.Integer(), nullable=False),
        sa.Column("catch_up_max_age_seconds", sa.Double(), nullable=False),
        sa.Column("overlap", sa.String(), nullable=False),
        sa.Column("start_deadline_seconds", sa.Double(), nullable=True),
        sa.Column("jitter_seconds", sa.Double(), nullable=False),
        sa.Column("timeout_seconds", sa.Double(), nullable=True),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("retry", Json, nullable=False),
        sa.Column("definition_hash", sa.String(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", UtcTimestamp(), nullable=False),
        sa.Column("updated_at", UtcTimestamp(), nullable=False),
        sa.CheckConstraint("catch_up IN ('once', 'skip', 'all')", name="batchd_schedules_catch_up_check"),
        sa.CheckConstraint("overlap IN ('skip', 'queue', 'allow')", name="batchd_schedules_overlap_check"),
        sa.PrimaryKeyConstraint("id", name="batchd_schedules_pkey"),
        comment="One row a job of the config. error: why its schedule cannot be planned, NULL when all is well.",
    )
    op.create_index(
        "batchd_schedules_due",
        "batchd_schedules",
        ["next_run_at"],
        unique=False,
        postgresql_where=sa.text("next_run_at IS NOT NULL AND paused_at IS NULL"),
        sqlite_where=sa.text("next_run_at IS NOT NULL AND paused_at IS NULL"),
    )


def _make_runs() -> None:
    op.create_table(
        "batchd_runs",
        sa.Column("id", BigId, sa.Identity(always=False), nullable=False),
        sa.Column("schedule_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("params", Json, nullable=False),
        sa.Column("scheduled_for", UtcTimestamp(), nullable=True),
        sa.Column("scheduled_until", UtcTimestamp(), nullable=True),
        sa.Column("fire_count", BigId, server_default=sa.text("1"), nullable=False),
        sa.Column("available_at", UtcTimestamp(), nullable=False),
        sa.Column("start_deadline_at", UtcTimestamp(), nullable=True),
        sa.Column("timeout_seconds", sa.Double(), nullable=True),
        sa.Column("retry", Json, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", UtcTimestamp(), nullable=True),
        sa.Column("fence", BigId, server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.String(), nullable=True),
        sa.Column("created_at", UtcTimestamp(), nullable=False),
        sa.Column("started_at", UtcTimestamp(), nullable=True),
        sa.Column("finished_at", UtcTimestamp(), nullable=True),
        sa.Column("cancel_requested_at", UtcTimestamp(), nullable=True),
        sa.Column("progress_done", BigId, nullable=True),
        sa.Column("progress_total", BigId, nullable=True),
        sa.Column("progress_note", sa.Text(), nullable=True),
        sa.Column("result", Json, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("concurrency_key", sa.String(), nullable=True),
        sa.Column("unique_key", sa.String(), nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="batchd_runs_lease_check"),
        sa.CheckConstraint(
            "(state IN ('queued', 'running')) = (finished_at IS NULL)", name="batchd_runs_finished_check"
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'skipped', 'missed', 'cancelled', 'quarantined')",
            name="batchd_runs_state_check",
        ),
        sa.ForeignKeyConstraint(["schedule_id"], ["batchd_schedules.id"], name="batchd_runs_schedule_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="batchd_runs_pkey"),
        sa.UniqueConstraint("schedule_id", "scheduled_for", name="batchd_runs_fire_key"),
        comment=(
            "The ledger. attempt: attempts used up; fence: claims so far; losses: claims in a row that ended without "
            "a word and without progress; a missed row stands for fire_count fire times, "
            "scheduled_for to scheduled_until."
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "batchd_runs_claim",
        "batchd_runs",
        [sa.literal_column("priority DESC"), "available_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
        sqlite_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "batchd_runs_concurrency",
        "batchd_runs",
        ["concurrency_key"],
        unique=True,
        postgresql_where=sa.text("state = 'running' AND concurrency_key IS NOT NULL"),
        sqlite_where=sa.text("state = 'running' AND concurrency_key IS NOT NULL"),
    )
    op.create_index("batchd_runs_finished", "batchd_runs", ["finished_at"], unique=False)
    op.create_index("batchd_runs_history", "batchd_runs", ["schedule_id", sa.literal_column("id DESC")], unique=False)
    op.create_index(
        "batchd_runs_lease",
        "batchd_runs",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
        sqlite_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "batchd_runs_unfinished",
        "batchd_runs",
        ["schedule_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
        sqlite_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "batchd_runs_unique",
        "batchd_runs",
        ["unique_key"],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'running') AND unique_key IS NOT NULL"),
        sqlite_where=sa.text("state IN ('queued', 'running') AND unique_key IS NOT NULL"),
    )


def _make_attempts() -> None:
    op.create_table(
        "batchd_attempts",
        sa.Column("run_id", BigId, nullable=False),
        sa.Column("fence", BigId, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("started_at", UtcTimestamp(), nullable=False),
        sa.Column("finished_at", UtcTimestamp(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_traceback", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('succeeded', 'failed', 'timed_out', 'cancelled', 'released', 'lost')",
            name="batchd_attempts_outcome_check",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["batchd_runs.id"], name="batchd_attempts_run_id_fkey", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "fence", name="batchd_attempts_pkey"),
        comment="One row a claim. outcome NULL: still running. A released or lost claim does not use up its number.",
    )


def _make_log_lines() -> None:
    op.create_table(
        "batchd_log_lines",
        sa.Column("id", BigId, sa.Identity(always=False), nullable=False),
        sa.Column("run_id", BigId, nullable=False),
        sa.Column("at", UtcTimestamp(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("fields", Json, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["batchd_runs.id"], name="batchd_log_lines_run_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="batchd_log_lines_pkey"),
        comment="A run's own log lines, bounded per run.",
        sqlite_autoincrement=True,
    )
    op.create_index("batchd_log_lines_run", "batchd_log_lines", ["run_id", "id"], unique=False)


def _make_outbox() -> None:
    op.create_table(
        "batchd_outbox",
        sa.Column("id", BigId, sa.Identity(always=False), nullable=False),
        sa.Column("created_at", UtcTimestamp(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("run_id", BigId, nullable=True),
        sa.Column("schedule_id", sa.String(), nullable=True),
        sa.Column("payload", Json, nullable=False),
        sa.PrimaryKeyConstraint("id", name="batchd_outbox_pkey"),
        comment="One row a state change, committed with it; alerts and the dashboard read it, retention prunes it.",
        sqlite_autoincrement=True,
    )
    op.create_index("batchd_outbox_created", "batchd_outbox", ["created_at"], unique=False)


def _make_workers() -> None:
    op.create_table(
        "batchd_workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("pid_namespace", sa.String(), nullable=False),
        sa.Column("process_started", BigId, nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("started_at", UtcTimestamp(), nullable=False),
        sa.Column("heartbeat_at", UtcTimestamp(), nullable=False),
        sa.CheckConstraint("state IN ('running', 'draining', 'stopped')", name="batchd_workers_state_check"),
        sa.PrimaryKeyConstraint("id", name="batchd_workers_pkey"),
        comment=(
            "Daemons. process_started: clock ticks since boot, from /proc/PID/stat, which tells a reused pid apart."
        ),
    )
