"""What the engine needs to know of the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from batchd.domain.lease import LeaseTerms
from batchd.domain.queue import QueueOrder, QueueRules


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`slots` threads; `queues` limits how many runs of a queue this daemon executes at once (None: no limit).

    `rules` are what holds for a queue in all daemons together.
    """

    slots: int
    queues: Mapping[str, int | None]
    lease: LeaseTerms
    reap_every: timedelta
    shutdown_grace: timedelta
    rules: Mapping[str, QueueRules] = field(default_factory=dict)
    queue_order: QueueOrder = QueueOrder.STRICT
