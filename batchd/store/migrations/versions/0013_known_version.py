"""Version 13: a daemon's row says which version of the tables it was made for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    """Add the column; daemons from before leave it empty."""
    op.add_column("batchd_workers", sa.Column("schema_version", sa.Integer(), nullable=True))
    if op.get_context().dialect.name == "postgresql":
        op.create_table_comment("batchd_workers", _COMMENT)


_COMMENT = (
    "Daemons. process_started: ticks since boot, tell reused pids apart; config_error: of a refused reload; "
    "schema_version: of the tables that it was made for."
)
