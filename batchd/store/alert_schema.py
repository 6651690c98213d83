"""The tables of alerts: incidents, what is to be told to whom, and the channels. Each index names its query."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Identity, Index, Integer, String, Table, Text, text

from batchd.db.types import BigId, Json, UtcTimestamp
from batchd.store.schema import metadata

OPEN, CLOSED = "open", "closed"
WAITING, SENDING, SENT, DROPPED = "waiting", "sending", "sent", "dropped"

incidents = Table(
    "batchd_incidents",
    metadata,
    Column("id", BigId, Identity(always=False), primary_key=True),
    Column("key", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("job", String),
    Column("run_id", BigId),
    Column("state", String, nullable=False),
    Column("summary", Text, nullable=False),
    Column("details", Json, nullable=False),
    Column("count", Integer, nullable=False, server_default=text("1")),
    Column("opened_at", UtcTimestamp, nullable=False),
    Column("last_at", UtcTimestamp, nullable=False),
    Column("notified_at", UtcTimestamp),
    Column("acknowledged_at", UtcTimestamp),
    Column("acknowledged_by", String),
    Column("closed_at", UtcTimestamp),
    Column("closed_because", String),
    CheckConstraint("state IN ('open', 'closed')", name="state"),
    CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed"),
    sqlite_autoincrement=True,
    comment=(
        "What is or was wrong. key: rule and subject, of which at most one incident is open; subject: a job, a kind, a "
        "queue or a daemon; run_id: the newest run that shows it; count: how often it was seen; last_at: when last."
    ),
)
Index(
    "batchd_incidents_open",  # detection: is it open already; what is open now
    incidents.c.key,
    unique=True,
    postgresql_where=text("state = 'open'"),
    sqlite_where=text("state = 'open'"),
)
Index("batchd_incidents_job", incidents.c.job, incidents.c.id.desc())  # incidents of a job, newest first
Index("batchd_incidents_closed", incidents.c.closed_at)  # retention

alerts = Table(
    "batchd_alerts",
    metadata,
    Column("id", BigId, Identity(always=False), primary_key=True),
    Column("channel", String, nullable=False),
    Column("event", String, nullable=False),
    Column("incident_id", BigId, ForeignKey(incidents.c.id, ondelete="CASCADE")),
    Column("payload", Json, nullable=False),
    Column("state", String, nullable=False),
    Column("message_id", String),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("available_at", UtcTimestamp, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("done_at", UtcTimestamp),
    Column("error", Text),
    CheckConstraint("state IN ('waiting', 'sending', 'sent', 'dropped')", name="state"),
    CheckConstraint("(state IN ('sent', 'dropped')) = (done_at IS NOT NULL)", name="done"),
    sqlite_autoincrement=True,
    comment=(
        "What is to be told to a channel, committed with what it tells of. Rows of one message_id go, or went, as one "
        "message; `sending` means that it may have gone; done_at: when it was sent, or dropped for the reason in error."
    ),
)
Index(
    "batchd_alerts_waiting",  # delivery: what a channel has to send next
    alerts.c.channel,
    alerts.c.available_at,
    postgresql_where=text("state IN ('waiting', 'sending')"),
    sqlite_where=text("state IN ('waiting', 'sending')"),
)
Index("batchd_alerts_done", alerts.c.channel, alerts.c.done_at)  # rate limit: what a channel sent lately; retention
Index("batchd_alerts_incident", alerts.c.incident_id)  # who was told of an incident

alert_channels = Table(
    "batchd_alert_channels",
    metadata,
    Column("name", String, primary_key=True),
    Column("type", String, nullable=False),
    Column("fence", BigId, nullable=False, server_default=text("0")),
    Column("worker", String),
    Column("lease_until", UtcTimestamp),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("error", Text),
    Column("failing_since", UtcTimestamp),
    Column("retry_at", UtcTimestamp),
    Column("sent_at", UtcTimestamp),
    Column("reached", Json),
    Column("seen_at", UtcTimestamp, nullable=False),
    comment=(
        "Channels of alerts; one daemon at a time serves one. failures, error, failing_since: since it last worked; "
        "reached: who has the message at hand already; seen_at: when a daemon last had it in its config."
    ),
)
