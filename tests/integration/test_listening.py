"""Listeners: every event once at least, in order, whatever crashes, raises, hangs or commits late."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from batchd.clock import SystemClock
from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import JobError
from batchd.jobs.contract import JobContext
from batchd.listeners import Event, EventName, Listener
from batchd.listening.listener_loop import ListenerLoop, Listening, registration
from batchd.store import control, leases, listeners, outbox, reported
from batchd.store.enqueue import NewRun, enqueue
from batchd.store.history import Retention, prune
from batchd.store.leases import Progress
from batchd.store.migrate import migrate
from batchd.store.outbox import Reader
from batchd.store.queries import store_status
from batchd.store.reported import ReportedEnd
from batchd.store.schema import listeners as listener_rows
from batchd.store.schema import outbox as outbox_rows
from batchd.store.schema import runs
from tests.support.databases import open_database
from tests.support.engine_room import engine_room
from tests.support.store_rows import add_run, add_schedule, run_row
from tests.support.waiting import wait_until

DAY = timedelta(days=1)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def store(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated store."""
    opened = open_database(request.getfixturevalue(request.param))
    migrate(opened)
    yield opened
    opened.close()


class Heard:
    """A listener's function that keeps what it got; raises while `broken` says so."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.calls = 0
        self.broken: Callable[[Event], bool] = lambda _event: False

    def __call__(self, event: Event) -> None:
        self.calls += 1
        if self.broken(event):
            raise ConnectionError("pager is down")
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [event.name.value for event in self.events]

    @property
    def run_ids(self) -> list[int]:
        return [event.run_id for event in self.events]


def listener(function: Callable[[Event], Any], *events: str, name: str = "one", **more: Any) -> Listener:
    """Return a listener; of every event when nothing is said."""
    return Listener(name, function, frozenset(EventName(each) for each in events or tuple(EventName)), **more)


def happen(store: Database, *run_ids: int, event: str = "run.finished", state: str = "failed", **facts: Any) -> None:
    """Write an event for each run, in one transaction."""
    with store.writing() as connection:
        for run_id in run_ids:
            outbox.add(connection, store, event, run_id, None, {"state": state, **facts})


def loop_of(store: Database, one: Listener, worker: str = "w1") -> ListenerLoop:
    """Return the listener's loop, registered and not started: the test turns it by hand."""
    listeners.register(store, [registration(one)])
    return ListenerLoop(store, one, worker, SystemClock())


def turn(loop: ListenerLoop) -> timedelta:
    """Let the loop do its work once."""
    return loop.run_once(SystemClock().now())


@contextlib.contextmanager
def listening(store: Database, *wanted: Listener, worker: str = "w1") -> Iterator[Listening]:
    """Serve the listeners as a daemon does, in threads."""
    parts = Listening(store, wanted, worker, SystemClock())
    parts.prepare()
    parts.start()
    try:
        yield parts
    finally:
        assert parts.stop(SystemClock().monotonic() + 10)


def row_of(store: Database, name: str = "one") -> Any:
    """The listener's row."""
    with store.reading() as connection:
        return connection.execute(select(listener_rows).where(listener_rows.c.name == name)).one()


def test_every_event_of_a_life_is_told_in_order(store: Database) -> None:
    """Started, progressed, retried, started again, failed; and of another run succeeded, with its result."""
    heard = Heard()

    def fail(context: JobContext) -> Any:
        if context.attempt == 1:
            context.progress(3, 10, "rows")
            wait_until(lambda: "progressed" in heard.names, seconds=20)
        raise JobError("no such host")

    with listening(store, listener(heard)), engine_room(store, {"fail": fail, "work": lambda _context: {"rows": 7}}):
        bad = add_run(store, job=None, kind="fail", queue="critical", max_attempts=2)
        wait_until(lambda: "failed" in heard.names, seconds=30)
        good = add_run(store, job=None, kind="work")
        with store.writing() as connection:
            store.dialect.notify(connection, [Topic.RUNS])
        wait_until(lambda: "succeeded" in heard.names, seconds=30)
    of_bad = [event for event in heard.events if event.run_id == bad]
    assert [event.name.value for event in of_bad] == ["started", "progressed", "retried", "started", "failed"]
    assert [event.attempt for event in of_bad] == [1, 1, 1, 2, 2]
    assert of_bad[1].details == {"done": 3, "total": 10, "note": "rows"}
    last = of_bad[-1]
    assert (last.kind, last.queue, last.state, last.reason, last.error) == (
        "fail",
        "critical",
        "failed",
        "error",
        "no such host",
    )
    (succeeded,) = [event for event in heard.events if event.name == "succeeded"]
    assert (succeeded.run_id, succeeded.result) == (good, {"rows": 7})
    assert [event.id for event in heard.events] == sorted(event.id for event in heard.events)


def test_started_and_progressed_cost_nothing_when_nobody_listens(store: Database) -> None:
    """The outbox has no row for them."""

    def work(context: JobContext) -> Any:
        context.progress(1)
        wait_until(lambda: run_row(store, context.run_id)["progress_done"] == 1, seconds=20)

    with engine_room(store, {"work": work}):
        add_run(store, job=None, kind="work")
        wait_until(lambda: "run.finished" in events_of(store), seconds=30)
    assert events_of(store) == ["run.finished"]


def events_of(store: Database) -> list[str]:
    """The outbox's events, oldest first."""
    with store.reading() as connection:
        return list(connection.execute(select(outbox_rows.c.event).order_by(outbox_rows.c.id)).scalars())


@pytest.mark.parametrize(
    ("event", "state", "reason", "expected"),
    [
        ("run.finished", "succeeded", None, "succeeded"),
        ("run.finished", "failed", "error", "failed"),
        ("run.quarantined", "quarantined", "not_understood", "failed"),
        ("run.lost", "failed", "lost_too_often", "failed"),
        ("run.retrying", "queued", "error", "retried"),
        ("run.cancelled", "cancelled", "requested", "discarded"),
        ("run.discarded", "cancelled", "discarded", "discarded"),
        ("run.skipped", "skipped", "overlap", "discarded"),
        ("run.missed", "missed", "catch_up", "missed"),
        ("run.lost", "queued", None, None),
        ("run.released", None, None, None),
        ("run.children_finished", None, None, None),
    ],
)
def test_what_each_row_of_the_outbox_is_called(
    sqlite_store: Database, event: str, state: str | None, reason: str | None, expected: str | None
) -> None:
    """Seven names for whoever listens; what is no news to anybody has none."""
    heard = Heard()
    loop = loop_of(sqlite_store, listener(heard))
    happen(sqlite_store, add_run(sqlite_store, job=None), event=event, state=state, reason=reason)
    turn(loop)
    assert heard.names == ([] if expected is None else [expected])


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Database]:
    """A migrated store, where the dialect makes no difference."""
    opened = open_database(sqlite_url)
    migrate(opened)
    yield opened
    opened.close()


def test_a_listener_hears_only_of_what_it_asked_for(store: Database) -> None:
    """By event, job, kind and queue; whatever it does not want moves its place on all the same."""
    add_schedule(store, "nightly")
    add_schedule(store, "other")
    wanted = add_run(store, job="nightly", kind="cleanup", queue="critical")
    others = [
        add_run(store, job="other", kind="cleanup", queue="critical"),
        add_run(store, job="nightly", kind="sync", queue="critical"),
        add_run(store, job="nightly", kind="cleanup", queue="low"),
    ]
    heard = Heard()
    narrow = {"jobs": frozenset({"nightly"}), "kinds": frozenset({"cleanup"}), "queues": frozenset({"critical"})}
    loop = loop_of(store, listener(heard, "failed", **narrow))
    for run_id in (*others, wanted):
        with store.writing() as connection:
            job = "other" if run_id == others[0] else "nightly"
            outbox.add(connection, store, "run.finished", run_id, job, {"state": "failed"})
    happen(store, wanted, state="succeeded")
    turn(loop)
    assert heard.run_ids == [wanted]
    assert row_of(store).last_id == 5


def test_a_new_listener_begins_with_what_happens_from_now_on(store: Database) -> None:
    """A thousand old failures are no reason to page anybody; one that comes back goes on where it was."""
    run_id = add_run(store, job=None)
    happen(store, run_id)
    heard = Heard()
    turn(loop_of(store, listener(heard)))
    assert heard.events == []
    happen(store, run_id)
    turn(loop_of(store, listener(heard), "w1"))
    assert len(heard.events) == 1


def test_a_listener_that_raises_gets_the_same_event_again_and_keeps_its_order(store: Database) -> None:
    """Later and later; the events behind wait; `batchd status` tells of it; then all come, each once."""
    first, second = (add_run(store, job=None) for _ in range(2))
    heard = Heard()
    loop = loop_of(store, listener(heard))
    heard.broken = lambda event: event.run_id == first
    happen(store, first, second)
    pauses = [turn(loop).total_seconds() for _ in range(4)]
    assert (pauses, heard.calls, heard.events) == ([1.0, 2.0, 4.0, 8.0], 4, [])
    (view,) = store_status(store).listeners
    assert (view.failures, view.behind) == (4, 2)
    assert "ConnectionError: pager is down" in (view.error or "")
    heard.broken = lambda _event: False
    turn(loop)
    (view,) = store_status(store).listeners
    assert (heard.run_ids, view.failures, view.error, view.behind) == ([first, second], 0, None, 0)


def test_a_listener_that_gives_up_leaves_one_event_out(store: Database) -> None:
    """After so many calls, said in the log; the next event is delivered."""
    first, second = (add_run(store, job=None) for _ in range(2))
    heard = Heard()
    loop = loop_of(store, listener(heard, give_up_after=3))
    heard.broken = lambda event: event.run_id == first
    happen(store, first, second)
    for _ in range(3):
        turn(loop)
    assert (heard.run_ids, heard.calls) == ([second], 4)
    assert row_of(store).failures == 0


def test_a_broken_and_a_hanging_listener_hold_up_no_other(store: Database) -> None:
    """Each has a thread of its own."""
    healthy, broken, release = Heard(), Heard(), threading.Event()
    broken.broken = lambda _event: True
    run_ids = [add_run(store, job=None) for _ in range(5)]
    try:
        with listening(
            store,
            listener(broken, name="broken"),
            listener(lambda _event: release.wait(30), name="hanging"),
            listener(healthy, name="healthy"),
        ):
            happen(store, *run_ids)
            wait_until(lambda: healthy.run_ids == run_ids, seconds=20)
            wait_until(lambda: broken.calls >= 1, seconds=20)
            release.set()
    finally:
        release.set()


def test_an_async_listener_is_awaited(store: Database) -> None:
    """Its coroutine runs to its end before its place moves on."""
    got: list[int] = []

    async def tell(event: Event) -> None:
        await asyncio.sleep(0.01)
        got.append(event.run_id)

    loop = loop_of(store, listener(tell))
    run_id = add_run(store, job=None)
    happen(store, run_id)
    turn(loop)
    assert (got, row_of(store).last_id) == ([run_id], 1)


def test_a_daemon_that_dies_delivers_again_what_it_had_not_noted(store: Database) -> None:
    """The place moves after the call: nothing is lost, the last events come twice, and in order."""
    run_ids = [add_run(store, job=None) for _ in range(3)]
    heard = Heard()
    one = listener(heard)
    dying = loop_of(store, one, "dies")
    happen(store, run_ids[0])
    turn(dying)
    dying._place.save = lambda **_how: None  # type: ignore[method-assign]  # kill -9 comes before it is written
    happen(store, *run_ids[1:])
    turn(dying)
    other = ListenerLoop(store, one, "takes-over", SystemClock())
    turn(other)
    assert len(heard.events) == 3  # the lease still stands
    expire(store)
    turn(other)
    assert heard.run_ids == [*run_ids, *run_ids[1:]]


def expire(store: Database) -> None:
    """Let the listener's lease be over."""
    with store.writing() as connection:
        connection.execute(update(listener_rows).values(lease_until=store.dialect.now_plus(-1)))


def test_a_daemon_that_was_frozen_does_not_move_the_place_back(store: Database) -> None:
    """Its write carries an old fence; it delivers nothing more."""
    run_ids = [add_run(store, job=None) for _ in range(2)]
    heard = Heard()
    one = listener(heard)
    frozen = loop_of(store, one, "frozen")
    turn(frozen)
    expire(store)
    other = ListenerLoop(store, one, "other", SystemClock())
    happen(store, *run_ids)
    turn(other)
    frozen._place.last_id = 1
    frozen._place.save(at_once=True)
    assert frozen._place.held is None
    assert row_of(store).last_id == 2
    happen(store, run_ids[0])
    turn(frozen)
    assert heard.run_ids == run_ids


def test_a_place_that_came_back_meanwhile_is_where_the_other_left_it(store: Database) -> None:
    """A call outlasts the lease, another daemon delivers everything and stops: nothing is delivered a third time."""
    run_ids = [add_run(store, job=None) for _ in range(3)]
    heard = Heard()
    one = listener(heard)
    other = ListenerLoop(store, one, "other", SystemClock())

    def slow(event: Event) -> None:
        heard(event)
        if len(heard.events) == 1:
            expire(store)
            turn(other)
            other.close()
            slow_loop._place._renew_at = 0.0  # as it is after so long

    slow_loop = loop_of(store, listener(slow), "slow")
    happen(store, *run_ids)
    turn(slow_loop)
    assert row_of(store).last_id == 3
    turn(slow_loop)
    assert heard.run_ids == [run_ids[0], *run_ids]


def test_a_daemon_that_stops_hands_over_at_once(store: Database) -> None:
    """No other has to wait for the lease to end."""
    heard = Heard()
    one = listener(heard)
    with listening(store, one, worker="first"):
        wait_until(lambda: row_of(store).worker == "first", seconds=20)
    other = ListenerLoop(store, one, "second", SystemClock())
    happen(store, add_run(store, job=None))
    turn(other)
    assert len(heard.events) == 1


def test_a_row_that_commits_late_is_not_left_out(store: Database) -> None:
    """Ids are given out at the insert, rows are seen at the commit: the reader waits for whoever is at work.

    On SQLite there is no such thing as a late commit.
    """
    run_ids = [add_run(store, job=None) for _ in range(3)]
    reader = Reader(store)
    if store.dialect.name == "sqlite":
        happen(store, *run_ids)
        assert [row.run_id for row in reader.after(0, 10)] == run_ids
        return
    with store.engine.connect() as late:
        outbox.add(late, store, "run.finished", run_ids[0], None, {"state": "failed"})  # id 1, not committed
        happen(store, run_ids[1])  # id 2, committed
        assert reader.after(0, 10) == ()
        happen(store, run_ids[2])
        assert reader.after(0, 10) == ()
        late.commit()
    assert [(row.id, row.run_id) for row in reader.after(0, 10)] == [(1, run_ids[0]), (2, run_ids[1]), (3, run_ids[2])]


def test_a_row_that_never_commits_holds_nobody_up(store: Database) -> None:
    """Its id stays a gap."""
    if store.dialect.name == "sqlite":
        return
    run_id = add_run(store, job=None)
    reader = Reader(store)
    with store.engine.connect() as late:
        outbox.add(late, store, "run.finished", run_id, None, {"state": "failed"})
        happen(store, run_id)
        assert reader.after(0, 10) == ()
        late.rollback()
    assert [row.id for row in reader.after(0, 10)] == [2]


def test_a_long_transaction_elsewhere_holds_nobody_up(store: Database) -> None:
    """An hour's import on the same server is no reason to hear of a failure an hour late."""
    if store.dialect.name == "sqlite":
        return
    run_id, other = add_run(store, job=None), add_run(store, job=None)
    with store.engine.connect() as importing:
        importing.execute(
            update(outbox_rows.metadata.tables["batchd_runs"])
            .values(priority=1)
            .where(outbox_rows.metadata.tables["batchd_runs"].c.id == other)
        )
        happen(store, run_id)
        assert [row.run_id for row in Reader(store).after(0, 10)] == [run_id]
        importing.rollback()


def test_under_many_writers_every_row_is_read_once_and_in_order(store: Database) -> None:
    """Six threads whose transactions begin and end in any order; the reader reads beside them."""
    if store.dialect.name == "sqlite":
        return
    run_id = add_run(store, job=None)
    count, done = 20, threading.Event()

    def write(number: int) -> None:
        for turn_no in range(count):
            with store.writing() as connection:
                outbox.add(connection, store, "run.finished", run_id, None, {"by": number, "n": turn_no})
                threading.Event().wait(0.001 * ((number * 7 + turn_no) % 5))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    reader, read, last_id = Reader(store), [], 0
    for writer in writers:
        writer.start()
    ended = threading.Thread(target=lambda: ([writer.join() for writer in writers], done.set()))
    ended.start()
    while True:
        was_done = done.is_set()
        rows = reader.after(last_id, 1_000)
        read += [row.id for row in rows]
        last_id = read[-1] if read else 0
        if was_done and not rows:
            break
    assert len(read) == len(set(read)) == 6 * count
    assert read == sorted(read)


def test_retention_keeps_what_a_listener_has_not_had(store: Database) -> None:
    """Until `keep_unread`; then it goes, and the listener's row counts what was lost."""
    heard = Heard()
    loop = loop_of(store, listener(heard))
    happen(store, *(add_run(store, job=None) for _ in range(3)))
    age(store, 2)
    assert prune(store, Retention(None, None, DAY, 7 * DAY)).events == 0
    age(store, 8)
    pruned = prune(store, Retention(None, None, DAY, 7 * DAY))
    assert (pruned.events, pruned.unread) == (3, {"one": 3})
    assert row_of(store).lost == 3
    turn(loop)
    assert heard.events == []


def test_retention_takes_what_every_listener_has_had(store: Database) -> None:
    """And everything when nobody listens."""
    loop = loop_of(store, listener(Heard()))
    happen(store, *(add_run(store, job=None) for _ in range(3)))
    turn(loop)
    age(store, 2)
    assert prune(store, Retention(None, None, DAY, 7 * DAY)).events == 3
    assert row_of(store).lost == 0


def test_a_listener_that_no_daemon_has_any_more_is_forgotten(store: Database) -> None:
    """It does not keep the outbox for ever; a daemon that still has it makes it known again."""
    heard = Heard()
    loop = loop_of(store, listener(heard))
    with store.writing() as connection:
        connection.execute(update(listener_rows).values(seen_at=store.dialect.now_plus(-8 * 86_400)))
    prune(store, Retention(None, None, DAY, 7 * DAY))
    listeners.wish_for_starts(store)  # a wish of the HTTP surface, and nobody whom a daemon must serve
    assert store_status(store).listeners == ()
    turn(loop)
    assert [each.name for each in store_status(store).listeners] == ["one"]


def age(store: Database, days: float) -> None:
    """Make every row of the outbox so old."""
    with store.writing() as connection:
        connection.execute(update(outbox_rows).values(created_at=store.dialect.now_plus(-days * 86_400)))


def test_a_reported_run_is_heard_of_like_any_other(store: Database) -> None:
    """From its start to its end, or to the word that it was lost."""
    heard = Heard()
    loop = loop_of(store, listener(heard))
    good, lost = (reported.begin(store, "backup", {}, f"script-{n}", timedelta(0)) for n in range(2))
    leases.write_progress(store, {good: (1, Progress(1, 2, "half"))})
    reported.finish(store, good, ReportedEnd(RunState.SUCCEEDED, None, {"bytes": 5}), None)
    with store.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == lost).values(lease_until=store.dialect.now_plus(-1)))
    leases.reap_expired(store, mine={})
    turn(loop)
    assert heard.names == ["started", "started", "progressed", "succeeded", "failed"]
    assert heard.run_ids == [good, lost, good, good, lost]
    assert (heard.events[3].result, heard.events[3].job, heard.events[4].reason) == ({"bytes": 5}, "backup", "lost")


def test_a_cancel_by_hand_is_discarded(store: Database) -> None:
    """Through the store's own functions, as the CLI does."""
    heard = Heard()
    loop = loop_of(store, listener(heard, "discarded"))
    (run_id,) = enqueue(store, [NewRun(kind="noop")], created_by=CreatedBy.API)
    control.request_cancel(store, run_id)
    turn(loop)
    assert [(event.run_id, event.state, event.kind) for event in heard.events] == [(run_id, "cancelled", "noop")]
