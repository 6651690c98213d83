"""A run: one fire of a schedule, or one request to run a job now.

    (planner) ──► queued ──claim──► running ──► succeeded
                    ▲  │               │ ├────► failed       (no attempt left, or not worth another)
                    │  │               │ └────► cancelled    (somebody asked, or the job itself: discarded)
                    │  │               └─ retry / snoozed / released / lost: back to queued, with a time
                    │  ├──► cancelled   (before it started)
                    │  ├──► missed      (its start deadline passed while it waited)
                    │  └──► quarantined (kind or params cannot be understood)
                    └── `batchd retry` from failed, cancelled, quarantined

    (planner) ──► skipped   overlap policy: the one before was still unfinished
    (planner) ──► missed    catch-up policy: fire times that passed unserved, one row for a range

A run that waits for its next attempt is `queued` with `attempt > 0`.
"""

from __future__ import annotations

import enum
from typing import assert_never


class RunState(enum.StrEnum):
    """Where a run is; exactly one final state ends it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    MISSED = "missed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to the run by itself."""
        return self not in UNFINISHED


DISCARDABLE = frozenset({RunState.QUEUED, RunState.FAILED, RunState.QUARANTINED, RunState.MISSED})
"""What a person may put away as cancelled."""

UNFINISHED = frozenset({RunState.QUEUED, RunState.RUNNING})

RETRYABLE_BY_HAND = frozenset({RunState.FAILED, RunState.CANCELLED, RunState.QUARANTINED, RunState.MISSED})


class Reason(enum.StrEnum):
    """Why a run is in its state, as a constant that programs can match on (column `reason`)."""

    OVERLAP = "overlap"
    CATCH_UP = "catch_up"
    SCHEDULE_CHANGED = "schedule_changed"
    START_DEADLINE = "start_deadline"
    JOB_REMOVED = "job_removed"
    REQUESTED = "requested"
    TIMEOUT = "timeout"
    ERROR = "error"
    LOST_TOO_OFTEN = "lost_too_often"
    NOT_UNDERSTOOD = "not_understood"
    DISCARDED = "discarded"
    LOST = "lost"
    SNOOZED = "snoozed"


class CreatedBy(enum.StrEnum):
    """Who asked for a run (column `created_by`)."""

    SCHEDULE = "schedule"
    CATCH_UP = "catch_up"
    CLI = "cli"
    API = "api"
    CLIENT = "client"
    SQL = "sql"
    JOB = "job"
    THEN = "then"
    MONITOR = "monitor"

    def trigger(self, attempt: int) -> str:
        """Return in one word of the log why an attempt of such a run began."""
        if attempt > 1:
            return "retry"
        match self:
            case CreatedBy.SCHEDULE:
                return "schedule"
            case CreatedBy.CATCH_UP:
                return "catchup"
            case CreatedBy.CLI:
                return "manual"
            case CreatedBy.API | CreatedBy.CLIENT | CreatedBy.SQL | CreatedBy.JOB | CreatedBy.THEN | CreatedBy.MONITOR:
                return "api"
        assert_never(self)


EXTERNAL_KIND = "external"
"""The kind of runs that somebody else executes and only reports: no daemon can, and none takes them back."""
