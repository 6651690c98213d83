"""The loop that judges: events of the outbox in order, and every few seconds what no event tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from batchd.alerts.rules import Judge, Known
from batchd.alerts.settings import AlertSettings
from batchd.alerts.watch import Limits, Watch
from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.domain.alert import AlertRule, is_too_quiet
from batchd.domain.run import RunState
from batchd.loop import Loop
from batchd.store import alert_facts, incident_log
from batchd.store.alert_facts import OutboxEvent, RunFacts
from batchd.store.incident_log import Change, Opening, Written
from batchd.store.listeners import ALERTS, Held, Registration
from batchd.store.outbox import Reader
from batchd.store.place import TRY_TO_TAKE, Place

_BATCH = 500
_POLL = timedelta(seconds=1)
_PRUNE_EVERY = timedelta(minutes=10)
_JUDGED = frozenset(
    {
        "run.finished",
        "run.lost",
        "run.quarantined",
        "run.retrying",
        "run.cancelled",
        "run.discarded",
        "run.started",
        "schedule.invalid",
        "daemon.lost",
    }
)


class Detector(Loop):
    """One daemon's at a time: a lease with a fence, as a listener's. `on_written` is called when there is to tell."""

    def __init__(
        self,
        store: Database,
        settings: AlertSettings,
        worker_id: str,
        clock: Clock,
        on_written: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__("alerts", clock)
        self._store = store
        self._settings = settings
        self._on_written = on_written
        self._reader = Reader(store)
        self._judge = Judge(settings)
        self._limits = Limits(store, settings, clock)
        self._watch = Watch(store, settings, self._limits)
        self._place = Place(store, self.registration(), worker_id, clock, self._taken)
        self._look_at = self._prune_at = 0.0
        self._steady_since: float | None = None

    def registration(self) -> Registration:
        """Return what its place in the outbox says of it."""
        wants_started = any(getattr(plan.own, "wants_start", False) for plan in self._settings.pings.values())
        return Registration(ALERTS, "incidents", wants_started=wants_started, wants_progressed=False)

    def run_once(self, now: datetime) -> timedelta:
        """Judge what has happened since, and look when it is time to."""
        if not self._place.hold():
            return TRY_TO_TAKE
        try:
            settled = self._reader.settled_after(self._place.last_id)
            is_news = settled > self._place.last_id
            events = alert_facts.events_after(self._store, self._place.last_id, settled, _BATCH) if is_news else ()
            if not self._judge_all(events):
                return TRY_TO_TAKE
            if self._clock.monotonic() >= self._look_at:
                self._look(now)
        except Exception:
            self._steady_since = None  # the store was away: nobody could send a heartbeat either
            raise
        self._place.save()
        return timedelta(0) if len(events) == _BATCH else min(_POLL, self._settings.check_every)

    def close(self) -> None:
        """Let another daemon judge at once; call it when the thread has ended."""
        self._place.give_up()

    def _taken(self, _held: Held) -> None:
        self._look_at, self._steady_since = self._clock.monotonic(), None

    def _judge_all(self, events: Sequence[OutboxEvent]) -> bool:
        """Return whether the place is ours still; when it is not, nothing was written."""
        if not events:
            return True
        judged = [event for event in events if event.event in _JUDGED]
        if judged:
            runs = alert_facts.run_facts(self._store, {event.run_id for event in judged if event.run_id is not None})
            is_open = set(incident_log.open_now(self._store))
            changes: list[Change] = []
            for event in judged:
                run = None if event.run_id is None else runs.get(event.run_id)
                following = self._judge.changes(event, self._known(event, run, is_open))
                is_open |= {each.key for each in following if isinstance(each, Opening)}
                changes += following
            if changes and not self._write(events[-1].id, changes):
                return False
        self._place.last_id = events[-1].id
        return True

    def _known(self, event: OutboxEvent, run: RunFacts | None, is_open: set[str]) -> Known:
        job = event.schedule_id
        is_success = event.payload.get("state") == RunState.SUCCEEDED.value
        if not is_success or run is None:
            return Known(run, None, is_too_quiet=False, open=is_open)
        return Known(
            run,
            None if run.seconds is None else self._limits.exceeded(job, timedelta(seconds=run.seconds)),
            is_too_quiet=self._had_nothing(job, run),
            open=is_open,
            jitter=self._watch.jitter_of(job),
            unserved=self._watch.unserved(run),
        )

    def _had_nothing(self, job: str | None, run: RunFacts) -> bool:
        if job is None or run.rows or not self._settings.policy_of(job).wants(AlertRule.TOO_QUIET):
            return False
        return is_too_quiet(run.rows, alert_facts.last_row_counts(self._store, job, run.id))

    def _look(self, now: datetime) -> None:
        """Look for what was missed first of all; for the rest only once this daemon has seen the store for a while."""
        monotonic = self._clock.monotonic()
        self._look_at = monotonic + self._settings.check_every.total_seconds()
        is_open = incident_log.open_now(self._store)
        changes = self._watch.missed(now, is_open)
        if self._steady_since is None:
            self._steady_since = monotonic
        else:
            changes += [*self._watch.too_long(is_open), *self._watch.queues(now, is_open)]
            is_steady = monotonic - self._steady_since >= self._settings.daemon_silence.total_seconds()
            changes += self._watch.daemons(is_open, finds_silent=is_steady)
        if changes and not self._write(self._place.last_id, changes):
            return
        every, held = self._settings.remind_every, self._place.held
        if every is not None and held is not None and incident_log.remind(self._store, held, every):
            self._on_written()
        if monotonic >= self._prune_at:
            is_partial = incident_log.prune(self._store, self._settings.keep_for)
            self._prune_at = monotonic + (0.0 if is_partial else _PRUNE_EVERY.total_seconds())

    def _write(self, last_id: int, changes: Sequence[Change]) -> bool:
        assert self._place.held is not None
        written = incident_log.write(self._store, self._place.held, last_id, changes, self._settings.group_wait)
        if written is not None:
            self._place.last_id = last_id
        self._place.saved(is_ours=written is not None)
        if written is None:
            return False
        self._log_all(written)
        self._on_written()
        return True

    def _log_all(self, written: Written) -> None:
        for incident, key, summary in written.opened:
            self._log.warning("incident.opened", incident=incident, key=key, summary=summary)
        for incident, key, summary in written.closed:
            self._log.info("incident.closed", incident=incident, key=key, summary=summary)
