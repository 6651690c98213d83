"""Version 6: incidents, what is told of them, and the channels that tell it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from batchd.db.types import BigId, Json, UtcTimestamp


def upgrade() -> None:
    """Add the three tables of alerts."""
    _incidents()
    _alerts()
    _channels()


def _incidents() -> None:
    op.create_table(
        "batchd_incidents",
        sa.Column("id", BigId, sa.Identity(always=False), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("job", sa.String(), nullable=True),
        sa.Column("run_id", BigId, nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("details", Json, nullable=False),
        sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("opened_at", UtcTimestamp(), nullable=False),
        sa.Column("last_at", UtcTimestamp(), nullable=False),
        sa.Column("notified_at", UtcTimestamp(), nullable=True),
        sa.Column("acknowledged_at", UtcTimestamp(), nullable=True),
        sa.Column("acknowledged_by", sa.String(), nullable=True),
        sa.Column("closed_at", UtcTimestamp(), nullable=True),
        sa.Column("closed_because", sa.String(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'closed')", name="batchd_incidents_state_check"),
        sa.CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="batchd_incidents_closed_check"),
        sa.PrimaryKeyConstraint("id", name="batchd_incidents_pkey"),
        sqlite_autoincrement=True,
        comment=(
            "What is or was wrong. key: rule and subject, of which at most one incident is open; subject: a job, a "
            "kind, a queue or a daemon; run_id: the newest run that shows it; count: how often it was seen; last_at: "
            "when last."
        ),
    )
    is_open = sa.text("state = 'open'")
    op.create_index(
        "batchd_incidents_open",
        "batchd_incidents",
        ["key"],
        unique=True,
        postgresql_where=is_open,
        sqlite_where=is_open,
    )
    op.create_index("batchd_incidents_job", "batchd_incidents", ["job", sa.text("id DESC")])
    op.create_index("batchd_incidents_closed", "batchd_incidents", ["closed_at"])


def _alerts() -> None:
    op.create_table(
        "batchd_alerts",
        sa.Column("id", BigId, sa.Identity(always=False), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("incident_id", BigId, nullable=True),
        sa.Column("payload", Json, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("message_id", sa.String(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("available_at", UtcTimestamp(), nullable=False),
        sa.Column("created_at", UtcTimestamp(), nullable=False),
        sa.Column("done_at", UtcTimestamp(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'sending', 'sent', 'dropped')", name="batchd_alerts_state_check"),
        sa.CheckConstraint("(state IN ('sent', 'dropped')) = (done_at IS NOT NULL)", name="batchd_alerts_done_check"),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["batchd_incidents.id"], name="batchd_alerts_incident_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="batchd_alerts_pkey"),
        sqlite_autoincrement=True,
        comment=(
            "What is to be told to a channel, committed with what it tells of. Rows of one message_id go, or went, as "
            "one message; `sending` means that it may have gone; done_at: when it was sent, or dropped for the reason "
            "in error."
        ),
    )
    is_left = sa.text("state IN ('waiting', 'sending')")
    op.create_index(
        "batchd_alerts_waiting",
        "batchd_alerts",
        ["channel", "available_at"],
        postgresql_where=is_left,
        sqlite_where=is_left,
    )
    op.create_index("batchd_alerts_done", "batchd_alerts", ["channel", "done_at"])
    op.create_index("batchd_alerts_incident", "batchd_alerts", ["incident_id"])


def _channels() -> None:
    op.create_table(
        "batchd_alert_channels",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("fence", BigId, server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.String(), nullable=True),
        sa.Column("lease_until", UtcTimestamp(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("failing_since", UtcTimestamp(), nullable=True),
        sa.Column("retry_at", UtcTimestamp(), nullable=True),
        sa.Column("sent_at", UtcTimestamp(), nullable=True),
        sa.Column("reached", Json, nullable=True),
        sa.Column("seen_at", UtcTimestamp(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="batchd_alert_channels_pkey"),
        comment=(
            "Channels of alerts; one daemon at a time serves one. failures, error, failing_since: since it last "
            "worked; reached: who has the message at hand already; seen_at: when a daemon last had it in its config."
        ),
    )
