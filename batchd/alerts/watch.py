"""What no event tells: a job that did not run, a run that goes on and on, a daemon that is silent, a queue that stands.

Looked for every few seconds, and at once when a daemon starts: what was missed while all daemons were down is the first
thing that the next one tells. A job's schedule is asked for the first fire time after its last success; until that plus
the grace is over, the job costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from batchd.alerts.rules import subject_of
from batchd.alerts.settings import AlertSettings
from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.domain.alert import (
    TELL_NO_SUCCESS,
    AlertPolicy,
    AlertRule,
    duration_limit,
    incident_key,
    is_short,
    overdue_fire,
    spoken,
)
from batchd.domain.job import JsonObject
from batchd.domain.quantities import parse_duration
from batchd.domain.run import EXTERNAL_KIND
from batchd.domain.schedule import Rule, ScheduleError, parse_schedule
from batchd.store import alert_facts
from batchd.store.alert_facts import RunFacts, WatchedJob
from batchd.store.incident_log import Change, Closing, OpenIncident, Opening

_LIMIT_HOLDS = timedelta(minutes=10)
_LATEST = timedelta(days=36_500)
_READ_AGAIN_EVERY = timedelta(minutes=5)

Open = Mapping[str, OpenIncident]


@dataclass(frozen=True, slots=True)
class _Expected:
    """Until when nothing has to be asked of a job: its row as of `since`, and when its next success is overdue.

    That was worked out from the success that began at `served`, so it says nothing of a run that began earlier.
    """

    since: datetime
    served: datetime
    overdue_at: datetime


class Limits:
    """How long the runs of each job may take; a job's own p99 is computed anew every ten minutes. For one thread."""

    def __init__(self, store: Database, settings: AlertSettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._known: dict[str, tuple[float, timedelta | None]] = {}

    def exceeded(self, job: str | None, took: timedelta) -> timedelta | None:
        """Return the limit that a run of the job has gone beyond; None when it has not.

        The store is asked for the job's last runs only when that can matter: most runs are short under any limit.
        """
        policy = self._settings.policy_of(job)
        if not policy.wants(AlertRule.TOO_LONG) or is_short(policy, took):
            return None
        limit = self._limit(job, policy)
        return limit if limit is not None and took > limit else None

    def _limit(self, job: str | None, policy: AlertPolicy) -> timedelta | None:
        if job is None or policy.p99_factor is None:
            return policy.max_duration
        now = self._clock.monotonic()
        known = self._known.get(job)
        if known is None or now >= known[0]:
            limit = duration_limit(policy, alert_facts.last_durations(self._store, job))
            known = self._known[job] = (now + _LIMIT_HOLDS.total_seconds(), limit)
        return known[1]


class Watch:
    """Looks, and returns what changes. For one thread."""

    def __init__(self, store: Database, settings: AlertSettings, limits: Limits) -> None:
        self._store = store
        self._settings = settings
        self._limits = limits
        self._expected: dict[str, _Expected] = {}
        self._jobs: dict[str, WatchedJob] | None = None
        self._mark: tuple[object, ...] = ()
        self._read_again_at: datetime | None = None

    def missed(self, now: datetime, is_open: Open) -> list[Change]:
        """Return the jobs that did not run in time, and close what is about jobs that need not run any more."""
        jobs = self._jobs_now(now)
        return [*self._missed(jobs, now, is_open), *self._gone(jobs, is_open)]

    def jitter_of(self, job: str | None) -> timedelta:
        """Return how much later than its schedule says a run of the job may begin, as of the last look."""
        known = self._known_jobs().get(job or "")
        return timedelta(0) if known is None else timedelta(seconds=known.jitter_seconds)

    def unserved(self, run: RunFacts) -> datetime | None:
        """Return the first fire time that went without a success for longer than the grace until this success began.

        What nobody could notice in time, because no daemon was there to look, shows when the next success is judged.
        """
        job = self._known_jobs().get(run.job or "")
        began = run.started_at
        if job is None or began is None or not job.is_expected:
            return None
        policy = self._settings.policy_of(job.name)
        known = self._expected.get(job.name)
        if not policy.wants(AlertRule.MISSED):
            return None
        if known is not None and known.since == job.since and known.served < began <= known.overdue_at:
            return None
        before = alert_facts.last_successes(self._store, [job.name], before_run=run.id).get(job.name, job.since)
        rule = _rule_of(job)
        return None if rule is None else overdue_fire(rule, max(before, job.since), began, _grace(job, policy.grace))

    def _known_jobs(self) -> dict[str, WatchedJob]:
        return self._read_jobs() if self._jobs is None else self._jobs

    def _jobs_now(self, now: datetime) -> dict[str, WatchedJob]:
        """Return the jobs; to read ten thousand takes a tenth of a second, so only when they have changed.

        And now and then, for who changes a row by hand says nothing of it in `updated_at`.
        """
        mark = alert_facts.jobs_mark(self._store)
        if self._jobs is None or mark != self._mark or self._read_again_at is None or now >= self._read_again_at:
            self._mark, self._read_again_at = mark, now + _READ_AGAIN_EVERY
            return self._read_jobs()
        return self._jobs

    def _read_jobs(self) -> dict[str, WatchedJob]:
        self._jobs = {job.name: job for job in alert_facts.watched_jobs(self._store)}
        return self._jobs

    def _missed(self, jobs: Mapping[str, WatchedJob], now: datetime, is_open: Open) -> list[Change]:
        asked = {
            name: rule
            for name, job in jobs.items()
            if self._may_be_overdue(job, now, is_open) and (rule := _rule_of(job)) is not None
        }
        if not asked:
            return []
        began = alert_facts.last_successes(self._store, asked)
        at_work = {run.job for run in alert_facts.running(self._store)}
        changes: list[Change] = []
        for name, rule in sorted(asked.items()):
            job, policy = jobs[name], self._settings.policy_of(name)
            grace = _grace(job, policy.grace)
            since = max(began.get(name, job.since), job.since)
            fire = overdue_fire(rule, since, now, grace)
            if fire is None:
                following = rule.next_after(since)
                overdue_at = following + grace if following else now + _LATEST
                self._expected[name] = _Expected(job.since, since, overdue_at)
            elif name not in at_work:  # one that began in time and is not done yet is `too_long`, if anything
                changes.append(_missed_opening(name, policy.to, fire, began.get(name)))
        return changes

    def _may_be_overdue(self, job: WatchedJob, now: datetime, is_open: Open) -> bool:
        known = self._expected.get(job.name)
        if known is not None and known.since == job.since and now <= known.overdue_at:
            return False
        if not job.is_expected or not self._settings.policy_of(job.name).wants(AlertRule.MISSED):
            self._expected.pop(job.name, None)
            return False
        return not any(incident_key(rule, job.name) in is_open for rule in TELL_NO_SUCCESS)

    def too_long(self, is_open: Open) -> list[Change]:
        """Return the runs that have been at work for longer than they may."""
        changes: list[Change] = []
        for run in alert_facts.running(self._store):
            subject = subject_of(run.job, run.kind)
            if incident_key(AlertRule.TOO_LONG, subject) in is_open:
                continue
            took = timedelta(seconds=run.seconds)
            limit = self._limits.exceeded(run.job, took)
            if limit is None:
                continue
            changes.append(
                Opening(
                    AlertRule.TOO_LONG,
                    subject,
                    f"run {run.id} is at work for {spoken(took)}; the limit is {spoken(limit)}",
                    self._settings.policy_of(run.job).to,
                    job=run.job,
                    run_id=run.id,
                    details={"seconds": run.seconds, "limit_seconds": limit.total_seconds(), "kind": run.kind},
                )
            )
        return changes

    def daemons(self, is_open: Open, *, finds_silent: bool) -> list[Change]:
        """Return the daemons that are silent, and those lost ones that are no trouble any more.

        `finds_silent` is False right after a start, or after the store was away: all of them are silent then.
        """
        policy = self._settings.policy
        seen = alert_facts.daemons(self._store, self._settings.daemon_silence.total_seconds())
        changes: list[Change] = []
        for worker, (host, heartbeat_at) in sorted(seen.silent.items()) if finds_silent else ():
            if policy.wants(AlertRule.DAEMON_LOST) and incident_key(AlertRule.DAEMON_LOST, worker) not in is_open:
                summary = f"no heartbeat since {heartbeat_at:%Y-%m-%d %H:%M:%S UTC}"
                details = {"host": host, "heartbeat_at": heartbeat_at.isoformat()}
                changes.append(Opening(AlertRule.DAEMON_LOST, worker, summary, policy.to, details=dict(details)))
        newest = max(seen.alive.values(), default=None)
        for incident in is_open.values():
            if incident.rule != AlertRule.DAEMON_LOST.value:
                continue
            over = _over(incident, seen, newest)
            if over is not None:
                changes.append(
                    Closing(AlertRule.DAEMON_LOST, incident.subject, summary=over, is_told=policy.tells_recovery)
                )
        return changes

    def queues(self, now: datetime, is_open: Open) -> list[Change]:
        """Return the queues whose runs wait for too long, and those that are well again."""
        settings, policy = self._settings, self._settings.policy
        if not policy.wants(AlertRule.QUEUE_LATENCY):
            return []
        waiting = alert_facts.waiting_since(
            self._store, settings.shortest_latency.total_seconds(), settings.queue_limits
        )
        slow = {
            queue: since
            for queue, since in waiting.items()
            if now - since > settings.queues.get(queue, settings.queue_latency)
        }
        changes: list[Change] = []
        for queue, since in sorted(slow.items()):
            if incident_key(AlertRule.QUEUE_LATENCY, queue) not in is_open:
                summary = f"its oldest run could have begun {spoken(now - since)} ago"
                details = {"waiting_since": since.isoformat()}
                changes.append(Opening(AlertRule.QUEUE_LATENCY, queue, summary, policy.to, details=dict(details)))
        over = [
            incident.subject
            for incident in is_open.values()
            if incident.rule == AlertRule.QUEUE_LATENCY.value and incident.subject not in slow
        ]
        said, tells = "no run waits too long any more", policy.tells_recovery
        changes += [Closing(AlertRule.QUEUE_LATENCY, queue, summary=said, is_told=tells) for queue in over]
        return changes

    def _gone(self, jobs: Mapping[str, WatchedJob], is_open: Open) -> list[Change]:
        """Return closings of what is about jobs that are gone, or that nobody expects to run any more."""
        changes: list[Change] = []
        for incident in is_open.values():
            if incident.job is None:
                continue
            job = jobs.get(incident.job)
            rule = AlertRule(incident.rule)
            if job is None:
                changes.append(Closing(rule, incident.subject, because="job_removed", is_told=False))
            elif not job.is_expected and rule is AlertRule.MISSED:
                changes.append(Closing(rule, incident.subject, because="not_expected", is_told=False))
        return changes


def _over(incident: OpenIncident, seen: alert_facts.Daemons, newest: datetime | None) -> str | None:
    """Return why a lost daemon is no trouble any more, or None."""
    if incident.subject in seen.alive:
        return "it beats again"
    said = incident.details.get("heartbeat_at")
    if newest is not None and isinstance(said, str) and newest > datetime.fromisoformat(said):
        return "another daemon has started since"
    if incident.subject not in seen.known:
        return "it is forgotten: a day without a heartbeat"
    return None


def _rule_of(job: WatchedJob) -> Rule | None:
    """Return when runs of the job are expected; None when nobody says, or it cannot be understood."""
    text = job.params.get("expected") if job.kind == EXTERNAL_KIND else job.schedule
    if not isinstance(text, str):
        return None
    try:
        return parse_schedule(text, job.timezone)
    except ScheduleError:
        return None  # told by itself, see `schedule.invalid`


def _grace(job: WatchedJob, usual: timedelta) -> timedelta:
    own = job.params.get("grace") if job.kind == EXTERNAL_KIND else None
    if isinstance(own, str):
        try:
            usual = parse_duration(own)
        except ValueError:
            return usual
    return usual + timedelta(seconds=job.jitter_seconds)


def _missed_opening(job: str, to: tuple[str, ...], fire: datetime, last: datetime | None) -> Opening:
    since = "never" if last is None else f"{last:%Y-%m-%d %H:%M:%S UTC}"
    summary = f"no run has succeeded for {fire:%Y-%m-%d %H:%M:%S UTC}; the last success began: {since}"
    last_at = None if last is None else last.isoformat()
    details: JsonObject = {"expected_at": fire.isoformat(), "last_success_at": last_at}
    return Opening(AlertRule.MISSED, job, summary, to, job=job, details=details)
