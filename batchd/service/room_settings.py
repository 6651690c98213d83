"""What each room of the daemon needs to know of a config."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from batchd.config.load import Config
from batchd.db.engine import Database
from batchd.domain.lease import LeaseTerms
from batchd.engine.settings import EngineSettings
from batchd.engine.setup import EngineConfig
from batchd.scheduler.scheduler import SchedulerSettings
from batchd.store.history import Retention
from batchd.telemetry.masking import Masker

LEASE = LeaseTerms(length=timedelta(seconds=30), heartbeat=timedelta(seconds=10))
REAP_EVERY = timedelta(seconds=5)
"""A dead worker's run goes on when its lease has ended and the reaper has looked: within 35 s."""


def scheduler_settings(config: Config) -> SchedulerSettings:
    """Return what the scheduler needs to know of the config."""
    daemon = config.settings.daemon
    return SchedulerSettings(
        Retention(
            daemon.keep_runs,
            daemon.keep_for,
            daemon.keep_events,
            daemon.keep_unread_events,
            keep={str(state): age for state, age in daemon.keep.items()},
        )
    )


def engine_config(config: Config, databases: Mapping[str, Database], masker: Masker) -> EngineConfig:
    """Return what attempts need to know of the config."""
    return EngineConfig(
        kinds=config.kinds,
        databases=databases,
        resolve_params=config.resolve_params,
        mask=masker.masked,
        mail=config.mail,
        definitions={job.name: job.definition_hash for job in config.jobs},
    )


def engine_settings(config: Config) -> EngineSettings:
    """Return what the engine needs to know of the config beside that."""
    daemon = config.settings.daemon
    return EngineSettings(
        slots=daemon.workers,
        queues={name: queue.concurrency for name, queue in config.settings.queues.items()},
        lease=LEASE,
        reap_every=REAP_EVERY,
        shutdown_grace=daemon.shutdown_grace,
        rules={name: queue.rules() for name, queue in config.settings.queues.items()},
        queue_order=daemon.queue_order,
    )
