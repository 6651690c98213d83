"""Brings the store's schedules in line with the config, and says what changed."""

from __future__ import annotations

from collections.abc import Sequence

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.domain.job import JobDefinition
from batchd.store import schedules
from batchd.store.schedules import ReconcileReport
from batchd.telemetry.logs import get_logger


def reconcile(store: Database, definitions: Sequence[JobDefinition], clock: Clock) -> ReconcileReport:
    """Return what was added, changed, removed and left alone; one transaction."""
    report = schedules.reconcile(store, definitions, clock.now())
    log = get_logger(loop="scheduler")
    log.info(
        "schedules.reconciled",
        added=report.added,
        changed=report.changed,
        removed=report.removed,
        unchanged=report.unchanged,
    )
    for name in report.invalid:
        log.error("schedule.invalid", job=name)
    return report
