"""Incidents and their delivery, on both dialects: opened once, told once, closed by what shows that it is well."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from batchd.alerts import delivery
from batchd.alerts.alerting import Alerting
from batchd.alerts.channel import Channel, ChannelSettings, Handover, Message, Surroundings, Undelivered
from batchd.alerts.channels.email import EmailChannel, EmailSettings
from batchd.alerts.delivery import ChannelLoop, PingLoop, Post
from batchd.alerts.detector import Detector
from batchd.alerts.settings import AlertSettings, ChannelPlan
from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.alert import AlertPolicy, AlertRule, QuietHours, Told
from batchd.domain.queue import QueueLimits, Rate
from batchd.store import deliveries, incident_log, incidents, leased, listeners, meta, outbox, workers
from batchd.store.alert_schema import alert_channels, alerts
from batchd.store.alert_schema import incidents as incident_rows
from batchd.store.incident_log import Opening
from batchd.store.incidents import IncidentFilter, IncidentView
from batchd.store.migrate import migrate
from batchd.store.schema import runs, schedules
from tests.support.databases import open_database
from tests.support.reporting import mail_to
from tests.support.smtp_sink import SmtpSink
from tests.support.store_rows import add_run, add_schedule, add_worker
from tests.support.waiting import wait_until

HOUR = timedelta(hours=1)
NONE = timedelta(0)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def store(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated store."""
    opened = open_database(request.getfixturevalue(request.param))
    migrate(opened)
    yield opened
    opened.close()


class Sink:
    """A channel that keeps what it is sent; `broken` is raised while it says something."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.broken: Undelivered | None = None
        self.calls = 0
        self.hold = threading.Event()
        self.hold.set()

    def send(self, message: Message, handover: Handover) -> str:
        self.calls += 1
        handover.confirm()
        self.hold.wait(30)
        if self.broken is not None:
            raise self.broken
        self.messages.append(message)
        return "thanks"

    @property
    def told(self) -> list[tuple[str, str]]:
        """What it was told: of which rule what."""
        return [(entry.rule, entry.told.value) for message in self.messages for entry in message.entries]


def settings(**changes: Any) -> AlertSettings:
    """Every rule, one channel, and nothing to wait for."""
    policy = AlertPolicy(frozenset(AlertRule), True, ("ops",), timedelta(minutes=15), None, 3.0, timedelta(minutes=1))
    usual = AlertSettings(
        policy=policy,
        jobs={},
        channels={"ops": ChannelPlan("ops", "webhook", ChannelSettings())},
        pings={},
        queue_latency=HOUR,
        queues={},
        daemon_silence=NONE,
        group_wait=NONE,
        remind_every=None,
        check_every=NONE,
        keep_trying=timedelta(days=3),
        keep_for=timedelta(days=90),
        timezone="UTC",
    )
    return dataclasses.replace(usual, **changes)


def detector(store: Database, chosen: AlertSettings | None = None, worker: str = "w1") -> Detector:
    """A detector that the test turns by hand."""
    made = Detector(store, chosen or settings(), worker, SystemClock())
    listeners.register(store, [made.registration()])
    return made


def post(store: Database, sink: Channel, plan: ChannelPlan | None = None, **changes: Any) -> Post:
    """The post of a channel that ends in the sink."""
    options: dict[str, Any] = {"keep_trying": timedelta(days=3), "is_ping": False, **changes}
    chosen = plan or ChannelPlan("ops", "webhook", ChannelSettings())
    deliveries.register(store, {chosen.name: chosen.type})
    return Post(
        store,
        chosen,
        sink,
        store_id=lambda: meta.store_id(store),
        mask=lambda text: text,
        clock=SystemClock(),
        **options,
    )


def deliver(store: Database, one: Post, worker: str = "w1", turns: int = 10) -> None:
    """Let a channel send what it has."""
    for _ in range(turns):
        held = deliveries.take(store, one.plan.name, worker)
        if held is None or one.turn(held) > NONE:
            return


def turn(*loops: Detector) -> None:
    """Let each judge once."""
    for loop in loops:
        loop.run_once(SystemClock().now())


def happen(store: Database, run_id: int, state: str, job: str | None = "nightly", event: str = "run.finished") -> None:
    """Write the end of a run to the outbox."""
    facts = {"state": state, "kind": "cleanup", "attempt": 1, "error": "no disk" if state == "failed" else None}
    with store.writing() as connection:
        outbox.add(connection, store, event, run_id, job, facts)


def ended(store: Database, state: str, job: str | None = "nightly", seconds: float = 1, **columns: Any) -> int:
    """Add a run that ended just now, with its notice; return its id."""
    began = datetime.now(UTC) - timedelta(seconds=seconds)
    run_id = add_run(store, state, job=job, started_at=began, **columns)
    happen(store, run_id, state, job)
    return run_id


def listed(store: Database, **wanted: Any) -> tuple[IncidentView, ...]:
    """The incidents, the newest first."""
    return incidents.list_incidents(store, IncidentFilter(**wanted))


def fresh_schedule(store: Database, name: str = "nightly", **columns: Any) -> None:
    """Add a job that became known just now."""
    add_schedule(store, name, **{"updated_at": datetime.now(UTC), **columns})


def test_a_failure_opens_one_incident_and_a_success_closes_it(store: Database) -> None:
    """Told at the first and at the end; what comes in between counts up; `first_failure` is its own."""
    fresh_schedule(store)
    judge, sink = detector(store), Sink()
    ops = post(store, sink)
    first = ended(store, "failed")
    last = ended(store, "failed")
    turn(judge)
    deliver(store, ops)
    incident = next(each for each in listed(store) if each.rule == "failed")
    assert (incident.count, incident.run_id, incident.job, incident.is_open) == (2, last, "nightly", True)
    assert sorted(sink.told) == [("failed", "opened"), ("first_failure", "opened")]
    assert len(sink.messages) == 1, "what goes wrong together is told together"
    assert first < last
    ended(store, "succeeded")
    turn(judge)
    deliver(store, ops)
    assert incidents.open_incidents(store) == ()
    assert sorted(sink.told[2:]) == [("failed", "recovered"), ("first_failure", "recovered")]
    ended(store, "failed")
    turn(judge)
    assert [each.rule for each in incidents.open_incidents(store, job="nightly")] == ["first_failure", "failed"]


def test_a_success_of_an_older_run_closes_nothing(store: Database) -> None:
    """The run that failed last says how the job is."""
    fresh_schedule(store)
    judge = detector(store)
    older = add_run(store, "succeeded", started_at=datetime.now(UTC))
    ended(store, "failed")
    happen(store, older, "succeeded")
    turn(judge)
    assert {each.rule for each in incidents.open_incidents(store)} == {"failed", "first_failure"}


def test_a_run_that_is_not_understood_is_told_and_closed_by_a_success(store: Database) -> None:
    """Of the job, and of runs without one; the run's page is in it, where browsers reach one."""
    fresh_schedule(store)
    judge, sink = detector(store), Sink()
    ops = post(store, sink, site="https://batch.example.com")
    run_id = add_run(store, "quarantined", job="nightly")
    orphan = add_run(store, "quarantined", job=None)
    happen(store, run_id, "quarantined", event="run.quarantined")
    happen(store, orphan, "quarantined", None, event="run.quarantined")
    turn(judge)
    deliver(store, ops)
    assert sorted(sink.told) == [("quarantined", "opened")] * 2
    entries = sink.messages[0].entries
    assert {entry.subject: entry.link for entry in entries} == {
        "nightly": f"https://batch.example.com/runs/{run_id}",
        "cleanup": f"https://batch.example.com/runs/{orphan}",
    }
    assert {entry.job for entry in entries} == {"nightly", None}
    ended(store, "succeeded")
    turn(judge)
    deliver(store, ops)
    assert sink.told[2:] == [("quarantined", "recovered")]
    assert [each.subject for each in incidents.open_incidents(store)] == ["cleanup"]


def test_a_run_that_is_put_away_by_hand_closes_its_incident_in_silence(store: Database) -> None:
    """`batchd discard`: nobody is told that it is well."""
    fresh_schedule(store)
    judge, sink = detector(store), Sink()
    run_id = ended(store, "failed")
    turn(judge)
    happen(store, run_id, "cancelled", event="run.cancelled")
    turn(judge)
    deliver(store, post(store, sink))
    assert {each.closed_because for each in listed(store)} == {"put_away"}
    assert {told for _, told in sink.told} == {"opened"}


def test_two_daemons_judge_and_send_everything_once(store: Database) -> None:
    """Both run all their threads; another takes over when the first one stops."""
    sink, chosen = Sink(), settings()

    def daemon(worker: str) -> Alerting:
        made = Alerting(store, dataclasses.replace(chosen, channels={}), worker, SystemClock(), around())
        made._channels = [ChannelLoop(store, post(store, sink), worker, SystemClock())]
        made.prepare()
        made.start()
        return made

    first, second = daemon("w1"), daemon("w2")
    try:
        for number in range(20):
            fresh_schedule(store, f"job-{number}")
            ended(store, "failed", job=f"job-{number}")
        wait_until(lambda: len(sink.told) >= 40, seconds=60, what="all told")
        assert first.stop(SystemClock().monotonic() + 10)
        ended(store, "succeeded", job="job-3")
        wait_until(lambda: len(sink.told) >= 42, seconds=60, what="the recovery, told by the other")
    finally:
        first.stop(SystemClock().monotonic() + 10)
        second.stop(SystemClock().monotonic() + 10)
    subjects = [(entry.subject, entry.rule, entry.told) for message in sink.messages for entry in message.entries]
    assert len(subjects) == len(set(subjects)) == 42


def around() -> Any:
    """The surroundings of no channel at all."""
    return dataclasses.make_dataclass("Around", [("mask", Any, dataclasses.field(default=str))])()


def test_a_slow_mail_server_gets_a_message_once_from_two_daemons(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for its answer for longer than a lease keeps the channel: the other does not send the same mail."""
    lease = timedelta(seconds=1)
    monkeypatch.setattr(leased, "LEASE", lease)
    monkeypatch.setattr(delivery, "_RENEW_EVERY", lease / 5)
    monkeypatch.setattr(delivery, "_TRY_TO_TAKE", lease / 5)
    with SmtpSink() as server:
        server.before_data_reply.clear()
        mail = Surroundings(mail_to(None, server), SystemClock(), str)
        channel = EmailChannel(EmailSettings(to=["ops@example.com"], subject_prefix=""), mail)
        loops = [ChannelLoop(store, post(store, channel), worker, SystemClock()) for worker in ("w1", "w2")]
        judge = detector(store)
        fresh_schedule(store)
        ended(store, "failed")
        turn(judge)
        for loop in loops:
            loop.start()
        try:
            wait_until(lambda: server.messages, seconds=30, what="the mail, on its way")
            over_at = SystemClock().monotonic() + 2.5 * lease.total_seconds()
            wait_until(lambda: len(server.messages) > 1 or SystemClock().monotonic() > over_at, what="two leases over")
            server.before_data_reply.set()
            wait_until(lambda: incidents.channel_views(store)[0].waiting == 0, seconds=30, what="all marked as sent")
        finally:
            server.before_data_reply.set()
            assert [loop.stop(SystemClock().monotonic() + 10) for loop in loops] == [True, True]
    assert len(server.messages) == 1


def test_a_daemon_that_lost_its_place_writes_nothing(store: Database) -> None:
    """What it judged is judged again by the one that has the place now, once."""
    fresh_schedule(store)
    frozen, other = detector(store, worker="w1"), detector(store, worker="w2")
    turn(frozen)
    held = frozen._place.held
    assert held is not None
    listeners.give_up(store, held)
    assert listeners.take(store, listeners.ALERTS, "w2")
    opening = Opening(AlertRule.FAILED, "nightly", "no disk", ("ops",))
    assert incident_log.write(store, held, 99, [opening], NONE) is None
    assert listed(store) == ()
    ended(store, "failed")
    fresh_schedule(store, "late", schedule="every 1h", updated_at=datetime.now(UTC) - timedelta(days=2))
    frozen._look_at = 0.0  # what it would tell beside, it must not tell either
    turn(frozen, other)
    assert [each.count for each in listed(store, rule="failed")] == [1]


def test_no_success_within_schedule_plus_grace_is_missed(store: Database) -> None:
    """Not while a run is at work, not when paused, not twice, and not where a failure has been told already."""
    yesterday = datetime.now(UTC) - timedelta(days=2)
    for name in ("late", "working", "failing"):
        fresh_schedule(store, name, schedule="every 1h", updated_at=yesterday)
    fresh_schedule(store, "paused", schedule="every 1h", updated_at=yesterday, paused_at=yesterday)
    fresh_schedule(
        store, "elsewhere", kind="external", schedule=None, updated_at=yesterday, params={"expected": "every 1h"}
    )
    fresh_schedule(store, "new", schedule="every 1h")
    add_run(store, "running", job="working", started_at=datetime.now(UTC))
    judge = detector(store)
    ended(store, "failed", job="failing")
    turn(judge, judge)
    assert sorted(each.subject for each in listed(store, rule="missed")) == ["elsewhere", "late"]
    assert {each.count for each in listed(store, rule="missed")} == {1}
    ended(store, "succeeded", job="late")
    with store.writing() as connection:
        connection.execute(update(schedules).where(schedules.c.id == "elsewhere").values(removed_at=yesterday))
    turn(judge, judge)
    closed = {each.subject: each.closed_because for each in listed(store, rule="missed")}
    assert closed == {"late": "recovered", "elsewhere": "job_removed"}


def test_many_fires_that_are_caught_up_late_are_told_once(store: Database) -> None:
    """Each succeeds hours after its time; one incident, opened and closed."""
    fresh_schedule(store)
    judge, sink = detector(store), Sink()
    for hours in (5, 4, 3):
        ended(store, "succeeded", scheduled_for=datetime.now(UTC) - timedelta(hours=hours))
    turn(judge)
    deliver(store, post(store, sink))
    assert sink.told == [("missed", "opened"), ("missed", "recovered")]
    assert "began" in listed(store)[0].summary


@pytest.mark.parametrize("known_for", [timedelta(days=2), NONE], ids=["as it is", "changed since"])
def test_fires_without_a_success_show_in_the_next_one(store: Database, known_for: timedelta) -> None:
    """No daemon was there to look, and the first run after that is in time itself; not if the job was changed since."""
    now = datetime.now(UTC)
    add_schedule(store, "nightly", schedule="every 1h", updated_at=now - known_for)
    judge, sink = detector(store), Sink()
    add_run(store, "succeeded", job="nightly", started_at=now - timedelta(hours=5))
    began = now - timedelta(seconds=1)
    late = add_run(store, "succeeded", job="nightly", started_at=began, scheduled_for=now - timedelta(minutes=1))
    turn(judge)  # the run is there, and its notice does not count yet
    happen(store, late, "succeeded")
    ended(store, "succeeded", seconds=0.5)
    turn(judge)
    deliver(store, post(store, sink))
    is_told = known_for > timedelta(hours=5)
    assert sink.told == ([("missed", "opened"), ("missed", "recovered")] if is_told else [])


def test_a_run_beyond_its_own_p99_is_too_long_while_it_runs(store: Database) -> None:
    """It is open as long as that run goes on; a later one within the limit closes it."""
    fresh_schedule(store)
    for _ in range(20):
        add_run(store, "succeeded", started_at=datetime.now(UTC) - timedelta(seconds=30))
    judge = detector(store)
    turn(judge)
    add_run(store, "running", started_at=datetime.now(UTC) - timedelta(seconds=80))
    turn(judge)
    assert listed(store, rule="too_long") == (), "p99 is 30 s, times 3 is 90 s"
    stuck = add_run(store, "running", started_at=datetime.now(UTC) - timedelta(seconds=100))
    turn(judge)
    assert [each.subject for each in incidents.open_incidents(store) if each.rule == "too_long"] == ["nightly"]
    ended(store, "succeeded", seconds=20)
    turn(judge)
    assert [each.count for each in incidents.open_incidents(store)] == [1]
    with store.writing() as connection:
        over = {"state": "succeeded", "lease_until": None, "finished_at": datetime.now(UTC)}
        connection.execute(update(runs).where(runs.c.state == "running").values(over))
    happen(store, stuck, "succeeded")
    turn(judge)
    assert [each.count for each in incidents.open_incidents(store)] == [2]
    ended(store, "succeeded", seconds=20)
    turn(judge)
    assert incidents.count_open(store) == 0


def test_a_success_without_rows_is_told_where_there_are_always_some(store: Database) -> None:
    """And closed by one that has some."""
    fresh_schedule(store)
    judge = detector(store)
    for rows in (5, 9, 2, 7, 1):
        ended(store, "succeeded", progress_done=rows)
    ended(store, "succeeded", progress_done=0)
    turn(judge)
    assert [each.rule for each in incidents.open_incidents(store)] == ["too_quiet"]
    ended(store, "succeeded", progress_done=3)
    turn(judge)
    assert incidents.count_open(store) == 0


def test_a_silent_daemon_is_lost_until_another_starts(store: Database) -> None:
    """One that said that it stops is not; one that was found dead at the next start is, once."""
    now = datetime.now(UTC)
    add_worker(store, "alive")
    add_worker(store, "silent", heartbeat_age=300)
    add_worker(store, "stopped", heartbeat_age=300, state="stopped")
    judge = detector(store, settings(daemon_silence=timedelta(seconds=30)))
    turn(judge)
    judge._steady_since = SystemClock().monotonic() - 60
    turn(judge, judge)
    assert [(each.rule, each.subject, each.count) for each in listed(store)] == [("daemon_lost", "silent", 1)]
    with store.writing() as connection:
        row = {"host": "h", "pid": 1, "boot_id": "b", "pid_namespace": "n", "process_started": 1, "version": "0"}
        connection.execute(
            workers.workers.insert().values(
                id="next", slots=1, state="running", started_at=now, heartbeat_at=store.dialect.now(), **row
            )
        )
    workers.mark_stopped(store, ("silent",))
    turn(judge, judge)
    assert [(each.subject, each.state, each.closed_because) for each in listed(store)] == [
        ("silent", "closed", "recovered")
    ]


def test_a_queue_whose_runs_wait_too_long_is_told_and_a_full_one_not(store: Database) -> None:
    """Closed when nothing waits any more."""
    ago = datetime.now(UTC) - timedelta(minutes=5)
    run_id = add_run(store, "queued", job=None, queue="critical", available_at=ago)
    add_run(store, "queued", job=None, queue="usual", available_at=ago)
    add_run(store, "running", job=None, queue="full")
    add_run(store, "queued", job=None, queue="full", available_at=ago)
    minute, limits = timedelta(minutes=1), QueueLimits(concurrency={"full": 1})
    judge = detector(store, settings(queues={"critical": minute, "full": minute}, queue_limits=limits))
    turn(judge, judge, judge)
    assert [(each.rule, each.subject) for each in listed(store)] == [("queue_latency", "critical")]
    with store.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(available_at=datetime.now(UTC)))
    turn(judge)
    assert incidents.count_open(store) == 0


def test_reminders_come_until_somebody_acknowledges(store: Database) -> None:
    """An incident can be closed by hand, and old ones go."""
    fresh_schedule(store)
    sink, judge = Sink(), detector(store, settings(remind_every=timedelta(milliseconds=1)))
    ops = post(store, sink)
    ended(store, "failed")
    turn(judge, judge)
    deliver(store, ops)
    assert ("failed", "reminder") in sink.told
    ids = {each.rule: each.id for each in listed(store)}
    assert all(incidents.acknowledge(store, each, by="ann") for each in ids.values())
    assert not incidents.acknowledge(store, ids["failed"], by="bob")
    before = len(sink.told)
    turn(judge)
    deliver(store, ops)
    assert len(sink.told) == before
    assert all(incidents.close(store, each, by="ann") for each in ids.values())
    detail = incidents.find_incident(store, ids["failed"])
    assert detail is not None
    assert (detail.incident.closed_because, detail.incident.acknowledged_by) == ("by_hand", "ann")
    assert not incident_log.prune(store, -HOUR), "nothing is left"
    assert listed(store) == ()


def test_a_channel_that_fails_rests_is_visible_and_tells_everything_later_once(store: Database) -> None:
    """What surely was not sent is put together anew, with what came meanwhile."""
    sink, judge = Sink(), detector(store)
    ops = post(store, sink)
    sink.broken = Undelivered("hook.example.com answered 503")
    for name in ("one", "two"):
        fresh_schedule(store, name)
        ended(store, "failed", job=name)
        turn(judge)
        deliver(store, ops)
    view = incidents.channel_views(store)[0]
    assert (view.failures, view.waiting, view.error) == (1, 4, "hook.example.com answered 503")
    assert sink.calls == 1, "it rests"
    sink.broken = None
    with store.writing() as connection:
        connection.execute(update(alert_channels).values(retry_at=None))
    deliver(store, ops)
    assert len(sink.messages) == 1
    assert {entry.subject for entry in sink.messages[0].entries} == {"one", "two"}
    assert incidents.channel_views(store)[0].failures == 0


def test_what_may_have_gone_goes_again_as_it_was(store: Database) -> None:
    """Under the same id, without what came meanwhile, which follows."""
    sink, judge = Sink(), detector(store)
    ops = post(store, sink)
    seen: list[Message] = []
    sink.broken = Undelivered("no answer", may_have_gone=True)
    original = sink.send
    sink.send = lambda message, handover: (seen.append(message), original(message, handover))[1]  # type: ignore[method-assign]
    for name in ("one", "two"):
        fresh_schedule(store, name)
        ended(store, "failed", job=name)
        turn(judge)
        deliver(store, ops)
    sink.broken = None
    with store.writing() as connection:
        connection.execute(update(alert_channels).values(retry_at=None))
    deliver(store, ops)
    assert [message.id for message in seen[:2]] == [seen[0].id] * 2
    assert seen[0] == seen[1]
    assert [entry.subject for message in sink.messages for entry in message.entries] == ["one", "one", "two", "two"]


def test_a_channel_waits_at_night_and_does_not_send_too_often(store: Database) -> None:
    """What waits goes together; after `keep_trying` it is given up and counted."""
    sink, judge = Sink(), detector(store)
    night = QuietHours(time(0, 0), time(23, 59, 59, 999_999), UTC)
    quiet = post(store, sink, ChannelPlan("ops", "webhook", ChannelSettings(), quiet=night))
    fresh_schedule(store)
    ended(store, "failed")
    turn(judge)
    deliver(store, quiet)
    assert sink.messages == []
    limited = post(store, sink, ChannelPlan("ops", "webhook", ChannelSettings(), rate=Rate(1, HOUR)))
    deliver(store, limited)
    ended(store, "succeeded")
    turn(judge)
    deliver(store, limited)
    assert len(sink.messages) == 1
    assert incidents.channel_views(store)[0].waiting == 2
    deliver(store, post(store, sink, keep_trying=-HOUR))
    assert len(sink.messages) == 1
    assert incidents.channel_views(store)[0].dropped == 2


def test_a_ping_that_hangs_holds_up_no_other_and_old_ones_are_left_out(store: Database) -> None:
    """Starts, successes and failures in order; of those that are minutes old only the last one counts."""
    slow, quick = Sink(), Sink()
    plans = {name: ChannelPlan(f"ping:{name}", "ping", ChannelSettings()) for name in ("slow", "quick")}
    posts = {
        plan.name: post(store, sink, plan, is_ping=True)
        for plan, sink in zip(plans.values(), (slow, quick), strict=True)
    }
    judge = detector(store, settings(pings=plans))
    for name in plans:
        fresh_schedule(store, name)
        happen(store, add_run(store, "running", job=name), "running", name, event="run.started")
    turn(judge)
    with store.writing() as connection:
        connection.execute(update(alerts).values(created_at=datetime.now(UTC) - HOUR))
    slow.hold.clear()
    for name in plans:
        ended(store, "failed", job=name)
    turn(judge)
    loop = PingLoop(store, posts, "w1", SystemClock())
    loop.run_once(SystemClock().now())
    try:
        wait_until(lambda: quick.messages, seconds=30, what="the quick one")
        assert slow.messages == []
    finally:
        slow.hold.set()
    wait_until(lambda: slow.messages and not loop._busy, seconds=30, what="the slow one, at last")
    loop.close()
    assert [each.entries[0].told for each in quick.messages] == [Told.FAIL]
    assert quick.messages[0].entries[0].summary == "no disk"
    loop.request_stop()
    loop._serve("ping:quick")
    assert deliveries.take(store, "ping:quick", "w2"), "what a loop that stops has just taken is free at once"


def test_only_one_incident_of_a_rule_and_subject_is_open_whatever_happens(store: Database) -> None:
    """The database itself decides."""
    row = {"key": "failed:x", "rule": "failed", "subject": "x", "state": "open", "summary": "", "details": {}}
    moment = {"opened_at": store.dialect.now(), "last_at": store.dialect.now()}
    with store.writing() as connection:
        connection.execute(incident_rows.insert().values(**row, **moment))
    with pytest.raises(Exception, match=r"(?i)unique"), store.writing() as connection:
        connection.execute(incident_rows.insert().values(**row, **moment))
    with store.reading() as connection:
        assert len(connection.execute(select(incident_rows.c.id)).all()) == 1
