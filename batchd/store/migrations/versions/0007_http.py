"""Version 7: the HTTP surface: tokens, sessions, the audit record, idempotency keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from batchd.db.types import BigId, Json, UtcTimestamp


def upgrade() -> None:
    """Add the tables of the HTTP surface."""
    _tokens_and_sessions()
    _audit()
    op.create_table(
        "batchd_web_requests",
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("run_id", BigId, nullable=True),
        sa.Column("created_at", UtcTimestamp(), nullable=False),
        sa.PrimaryKeyConstraint("actor", "key", name="batchd_web_requests_pkey"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["batchd_runs.id"], name="batchd_web_requests_run_id_fkey", ondelete="CASCADE"
        ),
        comment="Idempotency keys of the last day, each with the run that its request has queued.",
    )
    op.create_index("batchd_web_requests_created", "batchd_web_requests", ["created_at"])
    op.create_index("batchd_web_requests_run", "batchd_web_requests", ["run_id"])


def _tokens_and_sessions() -> None:
    op.create_table(
        "batchd_tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("created_at", UtcTimestamp(), nullable=False),
        sa.Column("expires_at", UtcTimestamp(), nullable=True),
        sa.Column("revoked_at", UtcTimestamp(), nullable=True),
        sa.Column("last_used_at", UtcTimestamp(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="batchd_tokens_pkey"),
        sa.UniqueConstraint("name", name="batchd_tokens_name_key"),
        sa.CheckConstraint("role IN ('metrics', 'viewer', 'operator')", name="batchd_tokens_role_check"),
        comment="Who may use the HTTP surface. digest: SHA-256 of the token, which is stored nowhere.",
    )
    op.create_table(
        "batchd_sessions",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("token_id", sa.String(), nullable=False),
        sa.Column("created_at", UtcTimestamp(), nullable=False),
        sa.Column("expires_at", UtcTimestamp(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="batchd_sessions_pkey"),
        sa.ForeignKeyConstraint(
            ["token_id"], ["batchd_tokens.id"], name="batchd_sessions_token_id_fkey", ondelete="CASCADE"
        ),
        comment="Browsers that are signed in. digest: SHA-256 of the cookie. A revoked token ends its sessions.",
    )
    op.create_index("batchd_sessions_token", "batchd_sessions", ["token_id"])
    op.create_index("batchd_sessions_expires", "batchd_sessions", ["expires_at"])


def _audit() -> None:
    op.create_table(
        "batchd_audit",
        sa.Column("id", BigId, sa.Identity(always=False), nullable=False),
        sa.Column("at", UtcTimestamp(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("via", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("job", sa.String(), nullable=True),
        sa.Column("run_id", BigId, nullable=True),
        sa.Column("queue", sa.String(), nullable=True),
        sa.Column("detail", Json, nullable=True),
        sa.PrimaryKeyConstraint("id", name="batchd_audit_pkey"),
        comment=(
            "Who triggered, paused, cancelled what, in the transaction that did it; tokens made and revoked, sign-ins."
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("batchd_audit_at", "batchd_audit", ["at"])
    op.create_index("batchd_audit_job", "batchd_audit", ["job", sa.text("id DESC")])
