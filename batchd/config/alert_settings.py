"""`[alerts]`, what every channel has, and `alerts` of a job, as typed models."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, WithJsonSchema

from batchd.config.section import Positive, Section
from batchd.domain.queue import Rate, parse_rate
from batchd.jobs.params import Duration

_LARGEST_FACTOR = 1_000

AlertWord = Literal[
    "failed",
    "first_failure",
    "missed",
    "too_long",
    "too_quiet",
    "quarantined",
    "daemon_lost",
    "queue_latency",
    "recovered",
]


def _word(value: Any) -> Any:
    return "missed" if value == "late" else value


def _rate(value: object) -> object:
    return value if isinstance(value, Rate) else parse_rate(str(value))


def _factor(value: float) -> float:
    if value and not 1 < value <= _LARGEST_FACTOR:
        raise ValueError(f"must be more than 1 and at most {_LARGEST_FACTOR}, or 0 for no such limit")
    return value


Factor = Annotated[float, AfterValidator(_factor)]
Words = list[Annotated[AlertWord, BeforeValidator(_word)]]
MessageRate = Annotated[Rate, BeforeValidator(_rate), WithJsonSchema({"type": "string", "examples": ["20/1h"]})]

_USUAL: Words = ["failed", "missed", "too_long", "quarantined", "daemon_lost", "queue_latency", "recovered"]


class ChannelSection(Section):
    """`[alerts.channels.NAME]`: what every channel has; the rest depends on its `type`."""

    type: str = Field(description="`email` or `webhook`.")
    rate: MessageRate | None = Field(
        default_factory=lambda: Rate(20, timedelta(hours=1)),
        description='Most messages within any such period: "20/1h". What comes beyond waits, and goes together.',
    )
    quiet_hours: str | None = Field(
        None, description='When nothing is sent, "22:00-07:00"; what waits goes together when they are over.'
    )
    timezone: str | None = Field(None, description="Time zone of the quiet hours; `daemon.timezone` when unset.")


class AlertsSection(Section):
    """`[alerts]`: what is told of jobs, queues and daemons, unless a job says otherwise, and by which channels."""

    on: Words = Field(
        default_factory=lambda: list(_USUAL),
        description="What opens an incident, and `recovered`: tell of its end too.",
    )
    to: list[str] | None = Field(None, description="Channels that are told; all of them when unset.")
    grace: Positive = Field(
        timedelta(minutes=15),
        description="`missed`: how long after a fire time, plus the job's jitter, there may be no success. A run that "
        "began in time and goes on is not missed.",
    )
    max_duration: Positive | None = Field(None, description="`too_long`: longest run. No such limit when unset.")
    p99_factor: Factor = Field(
        3.0,
        description="`too_long`: also a run that takes so many times what 99 of 100 of the job's runs took (its last "
        "100 successes, from 20 on). 0: no such limit.",
    )
    p99_least: Positive = Field(
        timedelta(minutes=1), description="No run below this is too long by `p99_factor`, however fast they were."
    )
    queue_latency: Positive = Field(
        timedelta(minutes=15), description="`queue_latency`: longest wait of a run that nothing holds back."
    )
    queues: dict[str, Positive] = Field(
        default_factory=dict, description='`queue_latency` of some queues: {critical = "30s"}.'
    )
    daemon_silence: Annotated[Duration, Field(ge=timedelta(seconds=30))] = Field(
        timedelta(seconds=90), description="`daemon_lost`: longest time without a heartbeat, which comes every 10 s."
    )
    group_wait: Duration = Field(
        timedelta(seconds=10), description="How long an alert waits for others that go in the same message."
    )
    remind_every: Duration = Field(
        timedelta(days=1),
        description='How often an open incident that nobody has acknowledged is told again. "0s": never.',
    )
    check_every: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(minutes=10))] = Field(
        timedelta(seconds=10), description="How often the daemon looks for what no event tells: `missed`, `too_long`, …"
    )
    keep_trying: Positive = Field(
        timedelta(days=3), description="How long an alert is tried again that a channel does not take."
    )
    keep_for: Positive = Field(timedelta(days=90), description="How long closed incidents are kept.")
    channels: dict[str, dict[str, JsonValue]] = Field(
        default_factory=dict, description="Who is told: `[alerts.channels.NAME]`, see below."
    )


class JobAlertsSection(Section):
    """`alerts`: what holds for this job instead of `[alerts]`."""

    on: Words | None = Field(None, description="What opens an incident; [] for nothing.")
    to: list[str] | None = Field(None, description="Channels that are told.")
    grace: Positive | None = Field(None, description="See `[alerts]`; of kind `external` its own `grace` comes first.")
    max_duration: Positive | None = Field(None, description="See `[alerts]`.")
    p99_factor: Factor | None = Field(None, description="See `[alerts]`.")
    p99_least: Positive | None = Field(None, description="See `[alerts]`.")
    ping: str | dict[str, str] | None = Field(
        None,
        description="A URL of Healthchecks' sort, called at each start (`/start`), success and failure (`/fail`); or a "
        "table with `start`, `success` and `fail`.",
    )
    ping_file: str | None = Field(None, description="File that holds the URL, instead of `ping`.")
