"""From an event of a run to what changes: which incidents open, which close, what is pinged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from batchd.alerts.settings import PING, AlertSettings
from batchd.domain.alert import (
    OF_RUNS,
    TELL_NO_SUCCESS,
    AlertPolicy,
    AlertRule,
    Told,
    incident_key,
    spoken,
)
from batchd.domain.run import RunState
from batchd.store.alert_facts import OutboxEvent, RunFacts
from batchd.store.incident_log import Change, Closing, Opening, Ping
from batchd.store.workers import DAEMON_LOST

_ENDED = frozenset({"run.finished", "run.lost"})
_PUT_AWAY = frozenset({"run.cancelled", "run.discarded"})
_CLOSED_BY_SUCCESS = (AlertRule.FAILED, AlertRule.FIRST_FAILURE, AlertRule.QUARANTINED, AlertRule.MISSED)
_LONGEST_BODY = 2_000


@dataclass(frozen=True, slots=True)
class Known:
    """What was looked up for an event: the run now, the limit that it went beyond, and whether no rows are odd.

    `open` are the keys of the incidents that are open or were before the events at hand. `unserved` is the first fire
    time that went without a success for too long until this one.
    """

    run: RunFacts | None
    limit: timedelta | None
    is_too_quiet: bool
    open: Collection[str]
    jitter: timedelta = timedelta(0)
    unserved: datetime | None = None


class Judge:
    """Decides; asks nobody and keeps nothing."""

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings

    def changes(self, event: OutboxEvent, known: Known) -> list[Change]:
        """Return what follows from the event, in order."""
        said = event.payload
        if event.run_id is None:
            return self._without_run(event)
        state = said.get("state")
        if event.event in _ENDED and state == RunState.SUCCEEDED.value:
            return self._succeeded(event, known)
        if event.event in _ENDED and state == RunState.FAILED.value:
            return self._failed(event, known)
        if event.event == "run.quarantined":
            return self._quarantined(event, known)
        if event.event == "run.retrying" and said.get("error") is not None:
            return self._first_failure(event, known, f"attempt {said.get('attempt', '?')}: {_error(said)}")
        if event.event in _PUT_AWAY:
            return self._put_away(event, known)
        if event.event == "run.started" and said.get("attempt", 1) == 1:
            return self._ping(event, Told.START)
        return []

    def _without_run(self, event: OutboxEvent) -> list[Change]:
        if event.event == DAEMON_LOST:
            policy, worker = self._settings.policy, str(event.payload.get("worker"))
            said = "it ended without a word: killed, out of memory, or its machine went down"
            details = {name: event.payload.get(name) for name in ("host", "heartbeat_at")}
            again = timedelta(hours=1)
            opening = Opening(
                AlertRule.DAEMON_LOST, worker, said, policy.to, details=details, unless_closed_within=again
            )
            return [opening] if policy.wants(AlertRule.DAEMON_LOST) else []
        if event.event == "schedule.invalid" and event.schedule_id is not None:
            policy = self._settings.policy_of(event.schedule_id)
            summary = f"its schedule cannot be planned: {_error(event.payload)}"
            opening = Opening(AlertRule.MISSED, event.schedule_id, summary, policy.to, job=event.schedule_id)
            return [opening] if policy.wants(AlertRule.MISSED) else []
        return []

    def _failed(self, event: OutboxEvent, known: Known) -> list[Change]:
        said = event.payload
        reason = said.get("reason")
        summary = _error(said) if reason in {None, "error"} else f"{_error(said)} ({reason})"
        details: dict[str, Any] = {"reason": reason, "attempt": said.get("attempt")}
        return [
            *self._opening(AlertRule.FAILED, event, known, summary, details),
            *self._first_failure(event, known, summary),
            *self._ping(event, Told.FAIL, summary),
        ]

    def _first_failure(self, event: OutboxEvent, known: Known, summary: str) -> list[Change]:
        return self._opening(AlertRule.FIRST_FAILURE, event, known, summary, {"attempt": event.payload.get("attempt")})

    def _quarantined(self, event: OutboxEvent, known: Known) -> list[Change]:
        summary = _error(event.payload)
        return [
            *self._opening(AlertRule.QUARANTINED, event, known, summary, {}),
            *self._ping(event, Told.FAIL, summary),
        ]

    def _put_away(self, event: OutboxEvent, known: Known) -> list[Change]:
        subject = _subject(event, known)
        return [
            Closing(rule, subject, because="put_away", of_run=event.run_id, is_told=False)
            for rule in sorted(OF_RUNS)
            if incident_key(rule, subject) in known.open
        ]

    def _succeeded(self, event: OutboxEvent, known: Known) -> list[Change]:
        subject = _subject(event, known)
        late = self._late(event, known, subject)
        return [
            *late,
            *self._closings(event, known, subject, _CLOSED_BY_SUCCESS, "a run has succeeded", opened=late),
            *self._took(event, known, subject),
            *self._had_rows(event, known, subject),
            *self._ping(event, Told.SUCCESS),
        ]

    def _late(self, event: OutboxEvent, known: Known, subject: str) -> list[Change]:
        """Return an incident for a success that came after the grace; the success itself closes it right after.

        So it is told that a fire was late even where nobody was there to notice in time: the daemon itself was down.
        """
        run = known.run
        if run is None or run.job is None or run.started_at is None:
            return []
        policy = self._policy(event)
        if known.open and any(incident_key(rule, subject) in known.open for rule in TELL_NO_SUCCESS):
            return []
        due = run.scheduled_for
        if due is not None and run.started_at - due - known.jitter <= policy.grace:
            due = None
        due = min(filter(None, (due, known.unserved)), default=None)
        if due is None:
            return []
        late = run.started_at - due
        summary = f"due at {due:%Y-%m-%d %H:%M:%S UTC}, a run began {spoken(late)} late"
        details: dict[str, Any] = {"scheduled_for": due.isoformat(), "late_seconds": late.total_seconds()}
        # Many fires that are caught up together are late together, and told once.
        again = max(policy.grace, timedelta(hours=1))
        return self._opening(AlertRule.MISSED, event, known, summary, details, unless_closed_within=again)

    def _took(self, event: OutboxEvent, known: Known, subject: str) -> list[Change]:
        run = known.run
        if run is None or run.seconds is None:
            return []
        took = timedelta(seconds=run.seconds)
        if known.limit is not None:
            summary = f"it took {spoken(took)}; the limit is {spoken(known.limit)}"
            details = {"seconds": run.seconds, "limit_seconds": known.limit.total_seconds()}
            return self._opening(AlertRule.TOO_LONG, event, known, summary, details)
        if not known.open:
            return []  # most often: spare the words
        return self._closings(event, known, subject, (AlertRule.TOO_LONG,), f"a run took {spoken(took)}")

    def _had_rows(self, event: OutboxEvent, known: Known, subject: str) -> list[Change]:
        if known.is_too_quiet:
            summary = "it succeeded and worked on no row; each of its last runs had some"
            return self._opening(AlertRule.TOO_QUIET, event, known, summary, {})
        rows = None if known.run is None else known.run.rows
        if not rows:
            return []
        return self._closings(event, known, subject, (AlertRule.TOO_QUIET,), f"a run worked on {rows:,} rows")

    def _opening(
        self,
        rule: AlertRule,
        event: OutboxEvent,
        known: Known,
        summary: str,
        details: dict[str, Any],
        *,
        unless_closed_within: timedelta | None = None,
    ) -> list[Change]:
        policy = self._policy(event)
        if not policy.wants(rule):
            return []
        return [
            Opening(
                rule,
                _subject(event, known),
                summary,
                policy.to,
                job=event.schedule_id,
                run_id=event.run_id,
                details={**details, "kind": _kind(event, known)},
                unless_closed_within=unless_closed_within,
            )
        ]

    def _closings(
        self,
        event: OutboxEvent,
        known: Known,
        subject: str,
        rules: tuple[AlertRule, ...],
        summary: str,
        opened: Sequence[Change] = (),
    ) -> list[Change]:
        """Return closings of what is open, and of what this very event has `opened`."""
        if not known.open and not opened:
            return []
        tells = self._policy(event).tells_recovery
        just_opened = {each.key for each in opened if isinstance(each, Opening)}
        return [
            Closing(
                rule,
                subject,
                summary=summary,
                run_id=event.run_id,
                up_to_run=event.run_id,
                is_ended=rule is AlertRule.TOO_LONG,
                is_told=tells,
            )
            for rule in rules
            if (key := incident_key(rule, subject)) in known.open or key in just_opened
        ]

    def _ping(self, event: OutboxEvent, told: Told, summary: str = "") -> list[Change]:
        job = event.schedule_id
        if job is None or job not in self._settings.pings or event.run_id is None:
            return []
        return [
            Ping(f"{PING}{job}", told, event.run_id, {"subject": job, "job": job, "summary": summary[:_LONGEST_BODY]})
        ]

    def _policy(self, event: OutboxEvent) -> AlertPolicy:
        return self._settings.policy_of(event.schedule_id)


def subject_of(job: str | None, kind: str) -> str:
    """Return what an incident about a run is about: its job, or its kind where it has none."""
    return kind if job is None else job


def _subject(event: OutboxEvent, known: Known) -> str:
    return subject_of(event.schedule_id, _kind(event, known))


def _kind(event: OutboxEvent, known: Known) -> str:
    return known.run.kind if known.run is not None else str(event.payload.get("kind") or "a run")


def _error(said: Mapping[str, Any]) -> str:
    error = said.get("error")
    return error if isinstance(error, str) and error else "no reason was given"
