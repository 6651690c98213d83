"""The shapes of the API: what it takes (pydantic models) and what it answers beyond the read models of the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from batchd.domain.run import RunState
from batchd.store.audit import AuditView
from batchd.store.incidents import IncidentView
from batchd.store.log_lines import StoredLine
from batchd.store.queries import AttemptView, JobView, RunView, WorkerView

LONGEST_PAGE = 200
"""Entries of one page; the next one begins behind its last."""

_Limit = Annotated[int, Field(ge=1, le=LONGEST_PAGE, description="How many at most.")]
_Before = Annotated[int | None, Field(ge=1, le=2**63 - 1, description="Older than this one: `next` of a page.")]


class Asked(BaseModel):
    """The base of whatever a client sends: unknown names are refused."""

    model_config = ConfigDict(extra="forbid")


class RunsAsked(Asked):
    """Which runs to list."""

    job: str | None = Field(None, description="Of this job.")
    state: list[RunState] = Field([], description="In one of these states.")
    tag: list[str] = Field([], max_length=10, description="With all of these tags.")
    parent: int | None = Field(None, ge=1, le=2**63 - 1, description="Queued by this run.")
    since: datetime | None = Field(None, description="Unfinished, or finished since then.")
    before: _Before = None
    limit: _Limit = 50


class LogAsked(Asked):
    """Which log lines."""

    after: int = Field(0, ge=0, le=2**63 - 1, description="Behind this line: `next` of a page.")
    limit: int = Field(200, ge=1, le=1_000, description="How many at most.")


class FiresAsked(Asked):
    """Which fire times."""

    count: int = Field(10, ge=1, le=500, description="How many.")
    after: datetime | None = Field(None, description="After this moment; now if unset.")


class PageAsked(Asked):
    """Which page of a list."""

    job: str | None = Field(None, description="Of this job.")
    before: _Before = None
    limit: _Limit = 50


class IncidentsAsked(PageAsked):
    """Which incidents."""

    rule: str | None = Field(None, description="Of this rule.")
    state: Literal["open", "closed"] | None = Field(None, description="Only these.")


class TriggerAsked(Asked):
    """A run to begin now."""

    params: dict[str, JsonValue] = Field(
        default_factory=dict, description="Replace single parameters, for this run only."
    )


class EnqueueAsked(Asked):
    """A run to queue; what is left out is the job's own setting."""

    name: str = Field(min_length=1, description="A job or, where there is no such job, a kind.")
    params: dict[str, JsonValue] = Field(default_factory=dict)
    queue: str | None = None
    priority: int | None = Field(None, description="Higher runs first.")
    at: datetime | None = Field(None, description="Not before this moment.")
    delay: float | str | None = Field(None, description='Not before so much time has passed: "5m", or seconds.')
    max_attempts: int | None = None
    timeout: float | str | None = None
    unique_key: str | None = Field(None, description="Queue nothing while an unfinished run has this key.")
    unique_period: float | str | None = None
    on_conflict: Literal["keep", "replace"] = "keep"
    tags: list[str] = Field(default_factory=list)
    metadata: dict[str, JsonValue] | None = None
    mutex: str | None = None
    limit_key: str | None = None


@dataclass(frozen=True, slots=True)
class Jobs:
    """Every job of the config."""

    jobs: tuple[JobView, ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """One page of runs, newest first; `next` goes into `before` for the following one, and is null on the last."""

    runs: tuple[RunView, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """A run with its attempts, oldest first, and how many runs it queued, by state."""

    run: RunView
    attempts: tuple[AttemptView, ...]
    children: dict[str, int]


@dataclass(frozen=True, slots=True)
class Log:
    """A part of a run's log, oldest first; `next` goes into `after` for what follows."""

    lines: tuple[StoredLine, ...]
    next: int


@dataclass(frozen=True, slots=True)
class Fire:
    """One fire time; `note` says that the clock changes before it."""

    job: str
    utc: datetime
    local: datetime
    note: str | None


@dataclass(frozen=True, slots=True)
class Fires:
    """Fire times to come, soonest first."""

    fires: tuple[Fire, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue: what waits and what runs, in all daemons, and its limits in the config of this one."""

    queue: str
    ready: int
    later: int
    parked: int
    running: int
    paused_at: datetime | None


@dataclass(frozen=True, slots=True)
class Queues:
    """Every queue."""

    queues: tuple[Queue, ...]


@dataclass(frozen=True, slots=True)
class Worker(WorkerView):
    """One daemon; `alive` says whether it told lately that it runs."""

    alive: bool


@dataclass(frozen=True, slots=True)
class Workers:
    """The daemons, the one that was heard of last first."""

    workers: tuple[Worker, ...]


@dataclass(frozen=True, slots=True)
class Incidents:
    """One page of incidents, newest first."""

    incidents: tuple[IncidentView, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class Audit:
    """One page of the audit record, newest first."""

    entries: tuple[AuditView, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class Queued:
    """A run is queued; `outcome` is `queued`, or what a unique key came to."""

    run_id: int
    outcome: str
    url: str


@dataclass(frozen=True, slots=True)
class Paused:
    """Whether a job's schedule or a queue is paused now; `changed` is false when it was so already."""

    name: str
    paused: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`cancelled`: at once; `requested`: the daemon that runs it is told."""

    run_id: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks."""

    name: str
    role: str | None
    via: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that was waited for."""

    run_id: int
    state: str
    reason: str | None
    result: dict[str, JsonValue] | None
    error: str | None
    duration_seconds: float | None
    url: str
