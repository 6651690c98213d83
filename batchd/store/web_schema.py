"""The tables of the HTTP surface: who may ask, who is signed in, who did what."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Identity, Index, PrimaryKeyConstraint, String, Table, text

from batchd.db.types import BigId, Json, UtcTimestamp
from batchd.store.schema import metadata, runs

tokens = Table(
    "batchd_tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("role", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("expires_at", UtcTimestamp),
    Column("revoked_at", UtcTimestamp),
    Column("last_used_at", UtcTimestamp),
    CheckConstraint("role IN ('metrics', 'viewer', 'operator')", name="role"),
    comment="Who may use the HTTP surface. digest: SHA-256 of the token, which is stored nowhere.",
)

sessions = Table(
    "batchd_sessions",
    metadata,
    Column("digest", String, primary_key=True),
    Column("token_id", String, ForeignKey(tokens.c.id, ondelete="CASCADE"), nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("expires_at", UtcTimestamp, nullable=False),
    comment="Browsers that are signed in. digest: SHA-256 of the cookie. A revoked token ends its sessions.",
)
Index("batchd_sessions_token", sessions.c.token_id)  # a revoked token's sessions
Index("batchd_sessions_expires", sessions.c.expires_at)  # retention

audit = Table(
    "batchd_audit",
    metadata,
    Column("id", BigId, Identity(always=False), primary_key=True),
    Column("at", UtcTimestamp, nullable=False),
    Column("actor", String, nullable=False),
    Column("via", String, nullable=False),
    Column("address", String),
    Column("action", String, nullable=False),
    Column("job", String),
    Column("run_id", BigId),
    Column("queue", String),
    Column("detail", Json),
    sqlite_autoincrement=True,
    comment="Who triggered, paused, cancelled what, in the transaction that did it; tokens made and revoked, sign-ins.",
)
Index("batchd_audit_at", audit.c.at)  # retention
Index("batchd_audit_job", audit.c.job, audit.c.id.desc())  # what was done to a job, newest first

web_requests = Table(
    "batchd_web_requests",
    metadata,
    Column("actor", String, nullable=False),
    Column("key", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("run_id", BigId, ForeignKey(runs.c.id, ondelete="CASCADE")),
    Column("created_at", UtcTimestamp, nullable=False),
    PrimaryKeyConstraint("actor", "key"),
    comment="Idempotency keys of the last day, each with the run that its request has queued.",
)
Index("batchd_web_requests_created", web_requests.c.created_at)  # retention
Index("batchd_web_requests_run", web_requests.c.run_id)  # what goes with a pruned run

IS_EXPORT = "kind = 'csv_export'"
"""As it stands in the index: a planner takes a partial index only for the very words."""

Index("batchd_runs_exports", runs.c.id.desc(), postgresql_where=text(IS_EXPORT), sqlite_where=text(IS_EXPORT))
