"""What the engine needs to know of the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from batchd.domain.lease import LeaseTerms


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`slots` threads; `queues` limits how many runs of a queue this daemon executes at once (None: no limit)."""

    slots: int
    queues: Mapping[str, int | None]
    lease: LeaseTerms
    reap_every: timedelta
    shutdown_grace: timedelta
