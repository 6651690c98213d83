"""The only module that knows APScheduler: our job store, trigger, executor and a guarded loop.

APScheduler is the alarm clock; the ledger is the truth. Stock parts lose fires in silence; here

- the loop survives every error: it is logged, and the next pass comes after a growing pause;
- the job store never writes: `next_run_at` moves only in the planner's transaction, so a pass that fails leaves its
  schedules due, and a stop cannot burn a fire;
- nothing is pickled, and a row that cannot be understood is marked and kept;
- a wait is at most LONGEST_WAIT, so a change by SQL, a suspended laptop or a stepped clock is noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import STATE_RUNNING, STATE_STOPPED
from apscheduler.triggers.base import BaseTrigger

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.errors import BatchdError, DatabaseUnavailable, LockTimeout, StatementCancelled
from batchd.store import planning
from batchd.store.planning import NextFire
from batchd.telemetry.logs import get_logger
from batchd.telemetry.thinning import Thinning

LONGEST_WAIT = timedelta(seconds=15)
_SHORTEST_WAIT = timedelta(milliseconds=50)
_FIRST_BACKOFF = timedelta(seconds=1)
_STEP_NOTICED = timedelta(seconds=1)
_STORE_AWAY = (DatabaseUnavailable, LockTimeout, StatementCancelled)

Plan = Callable[[Sequence[str], datetime, Callable[[], bool]], None]
"""Plans the schedules that are due at the moment, as long as the third argument says yes."""


@dataclass(frozen=True, slots=True)
class Passes:
    """How the passes went: what the watchdog and the status line are fed with.

    `last_at` is when the last one that succeeded began, None before the first; `next_fire` what it found to be next.
    `failing_since` (monotonic seconds) is set while they fail; `is_store_away` when that is an outage of the store.
    `sound_since` is since when they succeed.
    """

    last_at: datetime | None = None
    next_fire: NextFire | None = None
    failing_since: float | None = None
    is_store_away: bool = False
    sound_since: float | None = None


class AlarmClock:
    """Calls `plan` in its own thread whenever schedules are due. Any thread may call its methods.

    `on_turn` is called on that thread in the course of each pass, whatever becomes of it, and at least every
    `longest_wait`.
    """

    def __init__(
        self,
        store: Database,
        plan: Plan,
        clock: Clock,
        *,
        on_turn: Callable[[], None] = lambda: None,
        longest_wait: timedelta = LONGEST_WAIT,
    ) -> None:
        longest_wait = min(longest_wait, LONGEST_WAIT)
        self._scheduler = _GuardedScheduler(_ScheduleJobStore(store, clock), plan, clock, on_turn, longest_wait)
        self._clock = clock

    @property
    def passes(self) -> Passes:
        """How the passes went up to now."""
        return self._scheduler.passes

    @property
    def last_pass_end(self) -> float:
        """When that pass was over (monotonic seconds), or 0 before the first."""
        return self._scheduler.last_pass_end

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._scheduler.is_alive

    def start(self) -> None:
        """Start the thread; the first pass follows at once."""
        self._scheduler.start()

    def wake(self) -> None:
        """Look at once for what is due."""
        self._scheduler.wakeup()

    def pause(self) -> None:
        """Stop planning at once: a pass under way ends after its current transaction."""
        if self._scheduler.state == STATE_RUNNING:
            self._scheduler.pause()

    def stop(self, deadline: float) -> bool:
        """End the thread and wait until `deadline` (`clock.monotonic()` seconds); return whether it ended."""
        return self._scheduler.end(max(0.0, deadline - self._clock.monotonic()))


class _Due(Job):  # type: ignore[misc]
    """A due schedule on its way through one pass: an id and nothing that could be pickled."""

    __slots__ = ()

    def __init__(self, schedule_id: str, due_at: datetime) -> None:
        for name, value in {
            "id": schedule_id,
            "name": schedule_id,
            "trigger": _LedgerTrigger(),
            "executor": "default",
            "next_run_time": due_at,
            "coalesce": True,
            "max_instances": 1,
            "misfire_grace_time": None,
        }.items():
            setattr(self, name, value)

    def _get_run_times(self, _now: datetime) -> list[datetime]:
        return [self.next_run_time]  # the planner works out the fires

    def _modify(self, **changes: object) -> None:
        """Change nothing: the planner's transaction moves the row."""


class _LedgerTrigger(BaseTrigger):  # type: ignore[misc]
    """Answers "not within this pass": the rule is asked once, by the planner, in the transaction that needs it."""

    __slots__ = ()

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return max(now, previous_fire_time or now) + LONGEST_WAIT


class _ScheduleJobStore(BaseJobStore):  # type: ignore[misc]
    """Reads `batchd_schedules`. Writing is the planner's and reconcile's, so every write here does nothing."""

    def __init__(self, store: Database, clock: Clock) -> None:
        super().__init__()
        self._store = store
        self._clock = clock
        self.failure: Exception | None = None

    def get_due_jobs(self, _now: datetime) -> list[_Due]:
        now = self._clock.now()
        try:
            return [_Due(schedule_id, now) for schedule_id in planning.due_schedule_ids(self._store, now)]
        except Exception as error:  # noqa: BLE001 (APScheduler would flatten it to text; the guard raises it again)
            self.failure = error
            return []

    def get_next_run_time(self) -> datetime | None:
        return None  # the guard asks after the planner has moved `next_run_at`

    def next_fire(self) -> NextFire | None:
        return planning.next_fire(self._store)

    def raise_failure(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def lookup_job(self, _job_id: str) -> None:
        return None

    def get_all_jobs(self) -> list[_Due]:
        return []

    def add_job(self, job: Job) -> None:
        raise NotImplementedError("jobs come from the config, through `reconcile`")

    def update_job(self, job: Job) -> None:
        """Do nothing: the planner's transaction moves `next_run_at`."""

    def remove_job(self, job_id: str) -> None:
        """Do nothing: a schedule's row is never removed."""

    def remove_all_jobs(self) -> None:
        """Do nothing: a schedule's row is never removed."""


class _Collector(BaseExecutor):  # type: ignore[misc]
    """Gathers what a pass submits; the planner gets it as one batch."""

    def __init__(self) -> None:
        super().__init__()
        self._ids: list[str] = []

    def submit_job(self, job: Job, _run_times: list[datetime]) -> None:
        self._ids.append(job.id)

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        self.submit_job(job, run_times)

    def take(self) -> list[str]:
        ids, self._ids = self._ids, []
        return ids


class _GuardedScheduler(BackgroundScheduler):  # type: ignore[misc]
    """A BackgroundScheduler whose loop nothing ends but `end`."""

    def __init__(
        self,
        job_store: _ScheduleJobStore,
        plan: Plan,
        clock: Clock,
        on_turn: Callable[[], None],
        longest_wait: timedelta,
    ) -> None:
        self._on_turn = on_turn
        self._longest_wait = longest_wait
        self._schedule_store = job_store
        self._collector = _Collector()
        self._plan = plan
        self._clock = clock
        self._failures = 0
        self._thinning = Thinning()
        self._log = get_logger(loop="scheduler")
        self.last_pass_end = 0.0
        self.passes = Passes()
        super().__init__(
            timezone=UTC, jobstores={"default": job_store}, executors={"default": self._collector}, daemon=True
        )

    @property
    def is_alive(self) -> bool:
        thread: threading.Thread | None = self._thread
        return thread is not None and thread.is_alive()

    def end(self, seconds: float) -> bool:
        """Stop without the last pass of `shutdown`, which advances due fires, and without its unbounded join."""
        self.state = STATE_STOPPED
        if self._thread is None:
            return True
        self._event.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _process_jobs(self) -> float | None:
        if self.state != STATE_RUNNING:
            return None
        now = self._clock.now()
        self._on_turn()
        try:
            wait = self._pass(now)
        except Exception as error:  # noqa: BLE001 (the loop's boundary: nothing may end it)
            self._failures += 1
            self.passes = replace(
                self.passes,
                failing_since=self.passes.failing_since or self._clock.monotonic(),
                is_store_away=isinstance(error, _STORE_AWAY),
                sound_since=None,
            )
            self._on_turn()
            if self._thinning.failed(self._clock.monotonic()):
                self._tell(error)
            return float(min(_FIRST_BACKOFF * 2 ** min(self._failures - 1, 10), self._longest_wait).total_seconds())
        self._on_turn()
        if self._thinning.recovered(self._clock.monotonic()) is not None:
            self._log.info("scheduler.recovered", failures=self._failures)
            self._failures = 0
        return wait.total_seconds()

    def _tell(self, error: Exception) -> None:
        """Log a failure; one with a plain message of ours needs no traceback."""
        if isinstance(error, BatchdError):
            self._log.warning("scheduler.pass_failed", failures=self._failures, reason=str(error))
        else:
            self._log.error("scheduler.pass_failed", failures=self._failures, exc_info=error)

    def _pass(self, now: datetime) -> timedelta:
        last = self.passes.last_at
        if last is not None and now < last - _STEP_NOTICED:
            self._log.warning("scheduler.clock_stepped", back_seconds=(last - now).total_seconds())
        self._collector.take()  # what an interrupted pass left is still due, and comes again
        super()._process_jobs()
        self._schedule_store.raise_failure()
        ids = self._collector.take()
        if ids:
            self._plan(ids, now, self._may_go_on)
        self.last_pass_end = self._clock.monotonic()
        coming = self._schedule_store.next_fire()
        self.passes = Passes(now, coming, sound_since=self.passes.sound_since or self.last_pass_end)
        if coming is None:
            return self._longest_wait
        # What is due still is in another daemon's hands: give it a moment.
        shortest = _SHORTEST_WAIT if ids else timedelta(0)
        return min(max(coming.at - self._clock.now(), shortest), self._longest_wait)

    def _may_go_on(self) -> bool:
        self._on_turn()
        return bool(self.state == STATE_RUNNING)
