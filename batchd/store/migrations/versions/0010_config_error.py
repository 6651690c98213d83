"""Version 10: a daemon whose config was refused says so in its row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    """Add the column."""
    op.add_column("batchd_workers", sa.Column("config_error", sa.Text(), nullable=True))
    if op.get_context().dialect.name == "postgresql":
        op.create_table_comment("batchd_workers", _COMMENT)


_COMMENT = "Daemons. process_started: ticks since boot, tell reused pids apart; config_error: of a refused reload."
