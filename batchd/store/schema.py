"""The tables, made to be read with psql or sqlite3. Each index names the query that it serves.

Every `*_seconds` column is a number of seconds; every `*_at`, `scheduled_*` and `lease_until` a moment in UTC.
"""

from __future__ import annotations

import enum
from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)

from batchd.db.types import BigId, Json, UtcTimestamp
from batchd.domain.attempt import AttemptOutcome
from batchd.domain.job import CatchUp, Overlap
from batchd.domain.run import RunState

SCHEMA_VERSION = 13  # of the tables below; the migrations up to this number make them

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


def _one_of(column: str, words: type[enum.StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{word.value}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _partial_index(name: str, where: TextClause, *columns: ColumnElement[Any], unique: bool = False) -> None:
    Index(name, *columns, unique=unique, postgresql_where=where, sqlite_where=where)


meta = Table(
    "batchd_meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
    comment="Facts about the store itself: store_id (a uuid), schema_version.",
)

schedules = Table(
    "batchd_schedules",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("schedule", Text),
    Column("timezone", String, nullable=False),
    Column("queue", String, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("params", Json, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("next_run_at", UtcTimestamp),
    Column("paused_at", UtcTimestamp),
    Column("removed_at", UtcTimestamp),
    Column("catch_up", String, nullable=False),
    Column("catch_up_max_runs", Integer, nullable=False),
    Column("catch_up_max_age_seconds", Double, nullable=False),
    Column("overlap", String, nullable=False),
    Column("start_deadline_seconds", Double),
    Column("jitter_seconds", Double, nullable=False),
    Column("timeout_seconds", Double),
    Column("max_attempts", Integer, nullable=False),
    Column("retry", Json, nullable=False),
    Column("mutex", String),
    Column("limit_key", Text),
    Column("keep", Json),
    Column("then_run", Json),
    Column("definition_hash", String, nullable=False),
    Column("error", Text),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("updated_at", UtcTimestamp, nullable=False),
    _one_of("catch_up", CatchUp),
    _one_of("overlap", Overlap),
    comment=(
        "One row a job of the config. error: why its schedule cannot be planned, NULL when all is well. "
        "limit_key: a run's key, with {param} in place of a parameter; keep: seconds by state, over the daemon's; "
        "then_run: what is queued when a run of it succeeds."
    ),
)
_partial_index(
    "batchd_schedules_due",  # planner: what is due, and when is the next one
    text("next_run_at IS NOT NULL AND paused_at IS NULL"),
    schedules.c.next_run_at,
)

runs = Table(
    "batchd_runs",
    metadata,
    Column("id", BigId, Identity(always=False), primary_key=True),
    Column("schedule_id", String, ForeignKey(schedules.c.id)),
    Column("kind", String, nullable=False),
    Column("queue", String, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("params", Json, nullable=False),
    Column("scheduled_for", UtcTimestamp),
    Column("scheduled_until", UtcTimestamp),
    Column("fire_count", BigId, nullable=False, server_default=text("1")),
    Column("available_at", UtcTimestamp, nullable=False),
    Column("start_deadline_at", UtcTimestamp),
    Column("timeout_seconds", Double),
    Column("retry", Json, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False),
    Column("losses", Integer, nullable=False, server_default=text("0")),
    Column("lease_until", UtcTimestamp),
    Column("fence", BigId, nullable=False, server_default=text("0")),
    Column("worker", String),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("started_at", UtcTimestamp),
    Column("finished_at", UtcTimestamp),
    Column("cancel_requested_at", UtcTimestamp),
    Column("progress_done", BigId),
    Column("progress_total", BigId),
    Column("progress_note", Text),
    Column("result", Json),
    Column("error", Text),
    Column("concurrency_key", String),
    Column("unique_key", String),
    Column("created_by", String, nullable=False),
    Column("parent_id", BigId),
    Column("child_key", Text),
    Column("tags", Json),
    Column("metadata", Json),
    Column("mutex", String),
    Column("limit_key", Text),
    Column("waits_for", Text),
    Column("after_id", BigId),
    UniqueConstraint("schedule_id", "scheduled_for", name="batchd_runs_fire_key"),
    _one_of("state", RunState),
    CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name="finished"),
    sqlite_autoincrement=True,
    comment=(
        "The ledger. attempt: attempts used up; fence: claims so far; losses: claims in a row that ended without "
        "a word and without progress; a missed row stands for fire_count fire times, scheduled_for to scheduled_until. "
        "parent_id: the run that queued this one, which may be pruned by now; child_key: what it is to that run. "
        "tags: a list of texts; metadata: an object; both are whatever the one who queued it wrote. "
        "waits_for: the mutex or the key whose limit was full when the run's turn came; it is left alone until then. "
        "after_id: the run that this one follows, by `then`, `on_complete` or `on_success`."
    ),
)
UNFINISHED_STATES = ("queued", "running")
_UNFINISHED = text(f"state IN {UNFINISHED_STATES}")
_READY = text("state = 'queued' AND waits_for IS NULL")
_PARKED = text("state = 'queued' AND waits_for IS NOT NULL")
_RUNNING = text("state = 'running'")
_partial_index(
    "batchd_runs_claim",  # claim: the queues with queued runs, and the best runs of each, in this order
    _READY,
    runs.c.queue,
    runs.c.priority.desc(),
    runs.c.available_at,
    runs.c.id,
)
_partial_index(
    "batchd_runs_parked",  # claim: which limits are waited for, and the best runs that wait for one, in this order
    _PARKED,
    runs.c.waits_for,
    runs.c.priority.desc(),
    runs.c.available_at,
    runs.c.id,
)
_partial_index(
    "batchd_runs_running",  # claim: how many runs of a queue, and of a key of it, run in all daemons
    _RUNNING,
    runs.c.queue,
    runs.c.limit_key,
)
_partial_index(
    "batchd_runs_mutex",  # claim: one run at a time holds a mutex, decided by the database
    text("state = 'running' AND mutex IS NOT NULL"),
    runs.c.mutex,
    unique=True,
)
_partial_index(
    "batchd_runs_available",  # when may the next queued run be claimed; since when does the oldest wait
    _READY,
    runs.c.available_at,
)
_partial_index("batchd_runs_lease", _RUNNING, runs.c.lease_until)  # reaper: leases that ran out; heartbeat
_partial_index(
    "batchd_runs_concurrency",  # claim: one run at a time for each key, decided by the database
    text("state = 'running' AND concurrency_key IS NOT NULL"),
    runs.c.concurrency_key,
    unique=True,
)
_partial_index(
    "batchd_runs_unique",  # enqueue: at most one unfinished run of a unique key
    text("state IN ('queued', 'running') AND unique_key IS NOT NULL"),
    runs.c.unique_key,
    unique=True,
)
_partial_index(
    "batchd_runs_unique_succeeded",  # enqueue with a period: did a run of the unique key succeed in it
    text("state = 'succeeded' AND unique_key IS NOT NULL"),
    runs.c.unique_key,
    runs.c.created_at,
)
_partial_index("batchd_runs_unfinished", _UNFINISHED, runs.c.schedule_id)  # planner: has the schedule one
Index("batchd_runs_history", runs.c.schedule_id, runs.c.id.desc())  # runs of a job, newest first; retention by count
Index("batchd_runs_finished", runs.c.finished_at, runs.c.state)  # retention; `runs --since`; a day's endings by state
_ENDED = text("finished_at IS NOT NULL AND schedule_id IS NOT NULL")
EXCEPTIONAL_STATES = ("failed", "skipped", "missed", "cancelled", "quarantined")
# The dashboard: a job's days and durations, from the index alone; runs that did not succeed, newest first.
_partial_index("batchd_runs_ended", _ENDED, *(runs.c[n] for n in ("schedule_id", "finished_at", "state", "started_at")))
_EXCEPTIONAL = text(f"state IN {EXCEPTIONAL_STATES}")
_partial_index("batchd_runs_exceptional", _EXCEPTIONAL, runs.c.state, runs.c.id)
_partial_index("batchd_runs_exceptional_of_job", _EXCEPTIONAL, runs.c.schedule_id, runs.c.state, runs.c.id)

_CHILD = "parent_id IS NOT NULL"
_partial_index(
    "batchd_runs_child",  # a parent has one run of a key, whatever became of it; the children of a run
    text(_CHILD),
    runs.c.parent_id,
    runs.c.child_key,
    unique=True,
)
_partial_index(
    "batchd_runs_unfinished_child",  # does a fan-out have an unfinished run
    text(f"state IN ('queued', 'running') AND {_CHILD}"),
    runs.c.parent_id,
)

fan_outs = Table(
    "batchd_fan_outs",
    metadata,
    Column("run_id", BigId, ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("on_complete", Json),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("closed_at", UtcTimestamp),
    Column("done_at", UtcTimestamp),
    Column("on_complete_run_id", BigId),
    Column("on_success", Json),
    Column("on_success_run_id", BigId),
    comment=(
        "Runs that queue runs. closed_at: all children are queued; done_at: it and all its children are final; "
        "on_complete: the run to queue then, once; on_success: likewise, when all of them succeeded."
    ),
)
_partial_index(
    "batchd_fan_outs_open",  # fan-in: which are not done; retention keeps their runs
    text("done_at IS NULL"),
    fan_outs.c.run_id,
)

attempts = Table(
    "batchd_attempts",
    metadata,
    Column("run_id", BigId, ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("fence", BigId, nullable=False),
    Column("number", Integer, nullable=False),
    Column("worker", String, nullable=False),
    Column("started_at", UtcTimestamp, nullable=False),
    Column("finished_at", UtcTimestamp),
    Column("outcome", String),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("error_traceback", Text),
    PrimaryKeyConstraint("run_id", "fence"),
    _one_of("outcome", AttemptOutcome),
    comment="One row a claim. outcome NULL: still running. A released or lost claim does not use up its number.",
)

log_lines = Table(
    "batchd_log_lines",
    metadata,
    Column("id", BigId, Identity(always=False), primary_key=True),
    Column("run_id", BigId, ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("level", String, nullable=False),
    Column("event", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("fields", Json, nullable=False),
    sqlite_autoincrement=True,
    comment="A run's own log lines, bounded per run.",
)
Index("batchd_log_lines_run", log_lines.c.run_id, log_lines.c.id)  # `show RUN`

outbox = Table(
    "batchd_outbox",
    metadata,
    Column("id", BigId, Identity(always=False), primary_key=True),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("event", String, nullable=False),
    Column("run_id", BigId),
    Column("schedule_id", String),
    Column("payload", Json, nullable=False),
    sqlite_autoincrement=True,
    comment="One row a state change, committed with it; listeners and the dashboard read it, retention prunes it.",
)
Index("batchd_outbox_created", outbox.c.created_at)  # retention

queues = Table(
    "batchd_queues",
    metadata,
    Column("name", String, primary_key=True),
    Column("paused_at", UtcTimestamp),
    Column("updated_at", UtcTimestamp, nullable=False),
    comment="Queues that somebody has paused once; paused_at NULL: resumed. Their limits stand in the config.",
)

rate_starts = Table(
    "batchd_rate_starts",
    metadata,
    Column("id", BigId, Identity(always=False), primary_key=True),
    Column("name", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("counts_until", UtcTimestamp, nullable=False),
    sqlite_autoincrement=True,
    comment="The sliding windows of rate limits: how many runs of a queue or key began, and until when they count.",
)
Index("batchd_rate_starts_name", rate_starts.c.name, rate_starts.c.counts_until)  # claim: how many count now
Index("batchd_rate_starts_until", rate_starts.c.counts_until)  # retention

listeners = Table(
    "batchd_listeners",
    metadata,
    Column("name", String, primary_key=True),
    Column("events", Text, nullable=False),
    Column("wants_started", Boolean, nullable=False),
    Column("wants_progressed", Boolean, nullable=False),
    Column("last_id", BigId, nullable=False),
    Column("fence", BigId, nullable=False, server_default=text("0")),
    Column("worker", String),
    Column("lease_until", UtcTimestamp),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("error", Text),
    Column("lost", BigId, nullable=False, server_default=text("0")),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("seen_at", UtcTimestamp, nullable=False),
    comment=(
        "Functions that are called with events. last_id: all of the outbox up to there is delivered; failures, error: "
        "of the event that it cannot get past; lost: events that retention took before it had them; "
        "seen_at: when a daemon last had it."
    ),
)

workers = Table(
    "batchd_workers",
    metadata,
    Column("id", String, primary_key=True),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("pid_namespace", String, nullable=False),
    Column("process_started", BigId, nullable=False),
    Column("version", String, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("started_at", UtcTimestamp, nullable=False),
    Column("heartbeat_at", UtcTimestamp, nullable=False),
    Column("config_error", Text),
    Column("schema_version", Integer),
    CheckConstraint("state IN ('running', 'draining', 'stopped')", name="state"),
    comment=(
        "Daemons. process_started: ticks since boot, tell reused pids apart; config_error: of a refused reload; "
        "schema_version: of the tables that it was made for."
    ),
)
