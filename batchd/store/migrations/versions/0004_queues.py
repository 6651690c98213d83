"""Version 4: limits over all daemons, mutexes, rate limits, paused queues, retention by state and by job."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from batchd.db.types import BigId, Json, UtcTimestamp

_READY = "state = 'queued' AND waits_for IS NULL"
_PARKED = "state = 'queued' AND waits_for IS NOT NULL"
_RUNNING = "state = 'running'"
_HOLDS_MUTEX = "state = 'running' AND mutex IS NOT NULL"

_ORDER = [sa.literal_column("priority DESC"), "available_at", "id"]

_HOT = {"batchd_runs": 10_000, "batchd_attempts": 10_000, "batchd_outbox": 10_000, "batchd_rate_starts": 1_000}
"""After how many dead rows autovacuum comes: by default it waits for a fifth of a table that may have millions."""

_RUNS_COMMENT = (
    "The ledger. attempt: attempts used up; fence: claims so far; losses: claims in a row that ended without "
    "a word and without progress; a missed row stands for fire_count fire times, scheduled_for to scheduled_until. "
    "parent_id: the run that queued this one, which may be pruned by now; child_key: what it is to that run. "
    "tags: a list of texts; metadata: an object; both are whatever the one who queued it wrote. "
    "waits_for: the mutex or the key whose limit was full when the run's turn came; it is not looked at until then."
)
_SCHEDULES_COMMENT = (
    "One row a job of the config. error: why its schedule cannot be planned, NULL when all is well. "
    "limit_key: a run's key, with {param} in place of a parameter; keep: seconds by state, over the daemon's."
)


def upgrade() -> None:
    """Add the columns and tables, and make the claim's indexes leave out runs that wait for a limit."""
    _add_columns()
    _add_tables()
    for name in ("batchd_runs_claim", "batchd_runs_available"):
        op.drop_index(name, table_name="batchd_runs")
    _index("batchd_runs_claim", ["queue", *_ORDER], _READY)
    _index("batchd_runs_available", ["available_at"], _READY)
    _index("batchd_runs_parked", ["waits_for", *_ORDER], _PARKED)
    _index("batchd_runs_running", ["queue", "limit_key"], _RUNNING)
    _index("batchd_runs_mutex", ["mutex"], _HOLDS_MUTEX, unique=True)
    if op.get_context().dialect.name == "postgresql":
        op.create_table_comment("batchd_runs", _RUNS_COMMENT)
        op.create_table_comment("batchd_schedules", _SCHEDULES_COMMENT)
        for table, rows in _HOT.items():
            op.execute(
                f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.01, "
                f"autovacuum_vacuum_threshold = {rows}, autovacuum_analyze_scale_factor = 0.05, "
                f"autovacuum_vacuum_cost_delay = 1)"
            )


def _add_columns() -> None:
    op.add_column("batchd_schedules", sa.Column("mutex", sa.String(), nullable=True))
    op.add_column("batchd_schedules", sa.Column("limit_key", sa.Text(), nullable=True))
    op.add_column("batchd_schedules", sa.Column("keep", Json, nullable=True))
    op.add_column("batchd_runs", sa.Column("mutex", sa.String(), nullable=True))
    op.add_column("batchd_runs", sa.Column("limit_key", sa.Text(), nullable=True))
    op.add_column("batchd_runs", sa.Column("waits_for", sa.Text(), nullable=True))


def _add_tables() -> None:
    op.create_table(
        "batchd_queues",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("paused_at", UtcTimestamp(), nullable=True),
        sa.Column("updated_at", UtcTimestamp(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="batchd_queues_pkey"),
        comment="Queues that somebody has paused once; paused_at NULL: resumed. Their limits stand in the config.",
    )
    op.create_table(
        "batchd_rate_starts",
        sa.Column("id", BigId, sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("counts_until", UtcTimestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="batchd_rate_starts_pkey"),
        sqlite_autoincrement=True,
        comment="The sliding windows of rate limits: how many runs of a queue or key began, and until when they count.",
    )
    op.create_index("batchd_rate_starts_name", "batchd_rate_starts", ["name", "counts_until"])
    op.create_index("batchd_rate_starts_until", "batchd_rate_starts", ["counts_until"])


def _index(name: str, columns: list[Any], where: str, *, unique: bool = False) -> None:
    op.create_index(
        name,
        "batchd_runs",
        columns,
        unique=unique,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(where),
    )
