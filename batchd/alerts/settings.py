"""What the room of alerts needs to know of the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from batchd.alerts.channel import ChannelSettings
from batchd.domain.alert import AlertPolicy, AlertRule, QuietHours
from batchd.domain.queue import QueueLimits, Rate

PING = "ping:"
"""What stands before a job's name in the name of its channel of pings."""


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """A channel: its type, the settings of that type, how many messages it may send and when it is quiet."""

    name: str
    type: str
    own: ChannelSettings = field(repr=False)
    rate: Rate | None = None
    quiet: QuietHours | None = None


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """`[alerts]` with what the jobs say. `policy` holds where nobody says otherwise; `pings` are by job.

    `queue_latency` is how long a claimable run may wait, by queue in `queues`. `remind_every` None: never.
    `queue_limits` are what holds runs back on purpose. `site` is how browsers reach the dashboard, without a slash at
    the end.
    """

    policy: AlertPolicy
    jobs: Mapping[str, AlertPolicy]
    channels: Mapping[str, ChannelPlan]
    pings: Mapping[str, ChannelPlan]
    queue_latency: timedelta
    queues: Mapping[str, timedelta]
    daemon_silence: timedelta
    group_wait: timedelta
    remind_every: timedelta | None
    check_every: timedelta
    keep_trying: timedelta
    keep_for: timedelta
    timezone: str
    queue_limits: QueueLimits = field(default_factory=QueueLimits)
    site: str | None = None

    def policy_of(self, job: str | None) -> AlertPolicy:
        """Return what holds for the job's runs, or for runs without a job."""
        return self.policy if job is None else self.jobs.get(job, self.policy)

    @property
    def shortest_latency(self) -> timedelta:
        """Return the shortest wait that any queue counts as too long."""
        return min((self.queue_latency, *self.queues.values()))

    @property
    def rules(self) -> frozenset[AlertRule]:
        """Return the rules that hold anywhere."""
        return self.policy.on.union(*(policy.on for policy in self.jobs.values()))
