"""Turns due schedules into runs, batch by batch, and says what it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from batchd.db.engine import Database
from batchd.errors import BatchdError
from batchd.store import planning
from batchd.store.planning import Planned
from batchd.telemetry.logs import get_logger


class Planner:
    """Plans in the scheduler's thread. A schedule that cannot be planned is reported and stops no other."""

    def __init__(self, store: Database, on_planned: Callable[[], None] | None = None) -> None:
        self._store = store
        self._on_planned = on_planned
        self._log = get_logger(loop="scheduler")

    def plan(self, ids: Sequence[str], now: datetime, may_go_on: Callable[[], bool]) -> None:
        """Plan the schedules that are due at `now`; a stop is noticed between two transactions."""
        for start in range(0, len(ids), planning.BATCH):
            if not may_go_on():
                return
            self._report(self._plan_batch(ids[start : start + planning.BATCH], now))

    def start_up(self, now: datetime) -> None:
        """Queue the `@reboot` jobs of a daemon that starts at `now`."""
        self._report(planning.add_reboots(self._store, now))

    def _plan_batch(self, ids: Sequence[str], now: datetime) -> Planned:
        try:
            return planning.add_due(self._store, ids, now)
        except BatchdError:
            raise  # the store, not a row: everything stays due
        except (ValueError, TypeError) as error:
            # A row that somebody edited cannot even be read. Find it by halves; the others are planned all the same.
            if len(ids) == 1:
                why = f"the row cannot be read: {error}"
                planning.mark_invalid(self._store, ids[0], why)
                return Planned(schedules=1, invalid={ids[0]: why})
            middle = len(ids) // 2
            return self._plan_batch(ids[:middle], now).plus(self._plan_batch(ids[middle:], now))

    def _report(self, planned: Planned) -> None:
        for name, why in planned.invalid.items():
            self._log.error("schedule.invalid", job=name, error=why)
        if planned.queued or planned.skipped or planned.missed:
            self._log.debug("scheduler.planned", queued=planned.queued, skipped=planned.skipped, missed=planned.missed)
        if planned.missed:
            self._log.warning("schedule.missed", fires=planned.missed)
        if planned.queued and self._on_planned is not None:
            self._on_planned()
