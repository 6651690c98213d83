"""Turns due schedules into runs, batch by batch, and says what it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from batchd.db.engine import Database
from batchd.errors import BatchdError
from batchd.store import planning
from batchd.store.planning import Planned
from batchd.telemetry.logs import get_logger
from batchd.telemetry.meters import Meters

Add = Callable[[Database, Sequence[str], datetime], Planned]
"""Plans the schedules, all in one transaction."""


class Planner:
    """Plans in the scheduler's thread. A schedule that cannot be planned is reported and stops no other."""

    def __init__(
        self, store: Database, on_planned: Callable[[], None] | None = None, meters: Meters | None = None
    ) -> None:
        self._meters = meters or Meters(())
        self._store = store
        self._on_planned = on_planned
        self._log = get_logger(loop="scheduler")

    def plan(self, ids: Sequence[str], now: datetime, may_go_on: Callable[[], bool]) -> None:
        """Plan the schedules that are due at `now`; a stop is noticed between two transactions."""
        for start in range(0, len(ids), planning.BATCH):
            if not may_go_on():
                return
            self._report(self._plan_batch(planning.add_due, ids[start : start + planning.BATCH], now))

    def queue_reboots(self, began_at: datetime) -> None:
        """Queue the `@reboot` jobs of a daemon that began then; asked again, nothing is queued twice."""
        ids = planning.reboot_schedule_ids(self._store)
        for start in range(0, len(ids), planning.BATCH):
            self._report(self._plan_batch(planning.add_reboots, ids[start : start + planning.BATCH], began_at))

    def _plan_batch(self, add: Add, ids: Sequence[str], now: datetime) -> Planned:
        try:
            return add(self._store, ids, now)
        except BatchdError:
            raise  # the store, not a row: everything stays due
        except planning.UNREADABLE as error:
            # A row that somebody edited cannot even be read, or asks for what no run can be. Find it by halves; the
            # others are planned all the same.
            if len(ids) == 1:
                return Planned(schedules=1, invalid={ids[0]: planning.mark_invalid(self._store, ids[0], error)})
            middle = len(ids) // 2
            first, second = ids[:middle], ids[middle:]
            return self._plan_batch(add, first, now).plus(self._plan_batch(add, second, now))

    def _report(self, planned: Planned) -> None:
        for name, why in planned.invalid.items():
            self._log.error("schedule.invalid", job=name, error=why)
        for job, state, fires in planned.dropped:
            self._meters.count(state, job, fires)
        if planned.queued or planned.skipped or planned.missed:
            self._log.debug("scheduler.planned", queued=planned.queued, skipped=planned.skipped, missed=planned.missed)
        if planned.missed:
            self._log.warning("schedule.missed", fires=planned.missed)
        if planned.queued and self._on_planned is not None:
            self._on_planned()
