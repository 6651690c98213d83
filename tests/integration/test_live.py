"""Live events over real sockets: nothing lost, nothing twice, one reader for all, and nobody who holds others up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import event, update

from batchd.db.engine import Database
from batchd.store import leases, outbox
from batchd.store.leases import Progress
from batchd.store.migrate import migrate
from batchd.store.queries import RunView
from batchd.store.schema import log_lines, runs
from batchd.web.live import hub as hub_module
from batchd.web.live.event_stream import StreamTimes
from tests.support.databases import open_database
from tests.support.live_server import Heard, Listener, serving
from tests.support.store_rows import add_log_line, add_run, add_schedule
from tests.support.waiting import wait_until

QUICK = StreamTimes(heartbeat=timedelta(seconds=0.2), check_every=timedelta(seconds=0.2))


@pytest.fixture
def plain_store(sqlite_url: str) -> Iterator[Database]:
    """A migrated store with a job, for what does not depend on the database."""
    opened = open_database(sqlite_url)
    migrate(opened)
    add_schedule(opened)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def store(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated store with a job."""
    opened = open_database(request.getfixturevalue(request.param))
    migrate(opened)
    add_schedule(opened)
    yield opened
    opened.close()


def change(
    store: Database, run_id: int, name: str = "run.finished", state: str = "failed", job: str = "nightly"
) -> None:
    """Write one state change."""
    with store.writing() as connection:
        outbox.add(connection, store, name, run_id, job, {"state": state, "queue": "default"})


def key_of(heard: Heard) -> tuple[str, int]:
    """What tells a state change or a log line from all others."""
    return heard.event, heard.data["line"] if heard.event == "log" else heard.data["details"]["n"]


def begun(listener: Listener, store: Database, run_id: int) -> None:
    """Wait until something that happens reaches the listener."""
    if listener.last_id is None:
        listener.placed()
    change(store, run_id, "run.probe")
    listener.until(lambda heard: heard.event == "state" and heard.data["event"] == "run.probe")


def write_out_of_order(store: Database, run_id: int, seed: int, numbers: list[int]) -> None:
    """Write changes and lines in transactions that stay open for a while, so that they commit in another order."""
    draw = random.Random(seed)
    for number in numbers:
        with store.writing() as connection:
            if number % 2:
                outbox.add(connection, store, "run.test", run_id, "nightly", {"n": number})
            else:
                line = {"run_id": run_id, "level": "info", "event": "e", "message": str(number), "fields": {}}
                store.dialect.insert_all(connection, log_lines, [line], stamped=["at"])
            time.sleep(draw.choice([0, 0, 0.002, 0.02]))


def test_a_listener_that_comes_and_goes_misses_nothing_and_hears_nothing_twice(store: Database) -> None:
    """While six writers commit out of the order of their ids, and the listener hangs up wherever it happens to be."""
    run_id = add_run(store, "running")
    with serving(store, times=QUICK) as served:
        first = served.listen()
        begun(first, store, run_id)
        place = first.last_id
        first.close()
        stays = served.listen("/events", last_id=place)
        writers = [
            threading.Thread(target=write_out_of_order, args=(store, run_id, part, list(range(part, 240, 6))))
            for part in range(6)
        ]
        for writer in writers:
            writer.start()
        heard: list[tuple[str, int]] = []
        draw = random.Random(1)
        while len(heard) < 240:
            listener = served.listen("/events", last_id=place)
            for _ in range(draw.randint(1, 40)):
                got = listener.next()
                assert got is not None
                heard.append(key_of(got))
                if len(heard) == 240:
                    break
            place = listener.last_id
            listener.close()
        for writer in writers:
            writer.join()
        assert sorted(key for key in heard if key[0] == "state") == [("state", number) for number in range(1, 240, 2)]
        assert sorted(key for key in heard if key[0] == "log") == [("log", number) for number in range(1, 121)]
        stayed = [stays.next() for _ in range(240)]
        assert {key_of(each) for each in stayed if each} == set(heard)  # so live and caught up are the same
        late = served.listen("/events", last_id=place)
        change(store, run_id, "run.last")
        got = late.next()
        assert got is not None
        assert got.data["event"] == "run.last"


def test_progress_reaches_a_listener_and_ends_at_what_the_run_came_to(store: Database) -> None:
    """Each newest value once, with share and rate; before the end comes the last, though no look has seen it."""
    run_id = add_run(store, "running")
    with serving(store) as served:
        listener = served.listen(f"/runs/{run_id}/events")
        assert listener.until(lambda heard: heard.event == "snapshot")[-1].data == {"id": run_id, "state": "running"}
        seen = []
        for done in (10, 40):
            leases.write_progress(store, {run_id: (0, Progress(done, 200, "rows"))})
            seen.append(listener.until(lambda heard: heard.event == "progress")[-1])
        assert [(each.data["done"], each.data["percent"], each.data["note"]) for each in seen] == [
            (10, 5.0, "rows"),
            (40, 20.0, "rows"),
        ]
        assert seen[1].data["rate_per_second"] > 0
        assert seen[1].data["eta_seconds"] > 0
        assert all(each.id is None for each in seen)
        second = served.listen("/events?events=progress")  # whoever comes gets the newest at once
        newest = second.next()
        assert newest is not None
        assert newest.data["done"] == 40
        with store.writing() as connection:
            facts = {
                "state": "succeeded",
                "lease_until": None,
                "progress_done": 200,
                "finished_at": store.dialect.now(),
            }
            connection.execute(update(runs).where(runs.c.id == run_id).values(facts))
            outbox.add(connection, store, "run.finished", run_id, "nightly", {"state": "succeeded"})
        add_log_line(store, run_id, "written behind the end")
        rest = listener.until(lambda heard: heard.event == "end")
        assert [each.event for each in rest if each.event != "log"] == ["progress", "state", "end"]
        assert [each.data["percent"] for each in rest if each.event == "progress"] == [100.0]
        assert [each.data["message"] for each in rest if each.event == "log"] == ["written behind the end"]
        assert listener.next() is None
        assert listener.is_whole


def test_filters_are_the_listeners_own(plain_store: Database) -> None:
    """By job, by queue, by sort and by the name of an event."""
    run_id = add_run(plain_store, "running")
    with serving(plain_store) as served:
        everything = served.listen()
        begun(everything, plain_store, run_id)
        paths = {
            "job": "/events?jobs=weekly",
            "sort": "/events?events=log",
            "name": "/events?events=run.lost&jobs=nightly",
            "queue": "/events?queues=default&events=state",
        }
        listeners = {name: served.listen(path, last_id=everything.last_id) for name, path in paths.items()}
        change(plain_store, run_id, job="weekly")
        add_log_line(plain_store, run_id, "said")
        change(plain_store, run_id, "run.lost")
        heard = {name: listener.next() for name, listener in listeners.items()}
        assert [(each.event, each.data["job"]) for each in heard.values() if each] == [
            ("state", "weekly"),
            ("log", "nightly"),
            ("state", "nightly"),
            ("state", "weekly"),
        ]


def test_one_reader_serves_all_and_rests_when_nobody_listens(store: Database) -> None:
    """Forty listeners cost the store what one costs; none costs nothing."""
    counted: list[str] = []
    run_id = add_run(store, "running")
    with serving(store) as served:
        event.listen(store.engine, "before_cursor_execute", lambda *given: counted.append(given[2]))
        time.sleep(0.5)
        assert counted == []
        listeners = [served.listen() for _ in range(40)]
        for listener in listeners:
            begun(listener, store, run_id)
        time.sleep(0.4)
        counted.clear()
        time.sleep(1)
        # Two ends of indexes and the running runs, at each look; a listener adds nothing.
        asked = [statement for statement in counted if statement.startswith("SELECT")]
        assert 3 <= len(asked) <= 3 * (1 / 0.25 + 2)
        for listener in listeners:
            listener.close()
        wait_until(lambda: served.live.hub.epoch is None, what="all to be gone")
        time.sleep(0.4)
        counted.clear()
        time.sleep(0.5)
        assert counted == []


def test_a_silent_stream_says_that_it_lives_and_moves_the_place(plain_store: Database) -> None:
    """So that whoever filters much does not start from long ago when it comes back."""
    run_id = add_run(plain_store, "running")
    with serving(plain_store, times=QUICK) as served:
        listener = served.listen("/events?events=run.never")
        listener.placed()
        everything = served.listen()
        begun(everything, plain_store, run_id)
        threading.Thread(target=listener.next, daemon=True).start()
        wait_until(lambda: listener.last_id == everything.last_id, what="the place to move")
        assert listener.comments > 0
        assert 2_000 <= (listener.retry or 0) <= 4_000
        assert listener.headers["content-type"].startswith("text/event-stream")
        assert listener.headers["cache-control"] == "no-store, no-transform"
        assert listener.headers["x-accel-buffering"] == "no"
        assert "content-length" not in listener.headers


def test_a_slow_listener_is_dropped_and_goes_on_where_it_was(
    plain_store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds up nobody, costs no more than its queue, and misses nothing when it comes back."""
    monkeypatch.setattr(hub_module, "_MOST_BYTES", 100_000)
    run_id = add_run(plain_store, "running")
    with serving(plain_store) as served:
        quick, slow = served.listen(), served.listen()
        begun(slow, plain_store, run_id)
        quick.until(lambda heard: heard.event == "state")
        sent = 0
        while served.live.hub.dropped == 0:
            for _ in range(10):
                sent += 1
                add_log_line(plain_store, run_id, f"{sent} {'x' * 50_000}")
            quick.until(lambda heard, last=sent: heard.event == "log" and heard.data["line"] == last)
            assert sent < 400  # more than any socket's buffers
        had = []
        while (heard := slow.next()) is not None:
            had.append(key_of(heard))
        assert not slow.is_whole
        again = served.listen("/events", last_id=slow.last_id)
        while len(had) < sent:
            heard = again.next()
            assert heard is not None
            had.append(key_of(heard))
        assert had == [("log", number) for number in range(1, sent + 1)]
        assert served.live.hub.epoch is not None


def test_a_stop_ends_every_stream_whole_and_at_once(plain_store: Database) -> None:
    """A browser then comes back by itself; nothing waits for a timeout."""
    run_id = add_run(plain_store, "running")
    with serving(plain_store) as served:
        listeners = [served.listen() for _ in range(20)]
        begun(listeners[-1], plain_store, run_id)
        began = time.monotonic()
        served.stop()
        assert time.monotonic() - began < 2.5
        for listener in listeners:
            while listener.next() is not None:
                pass
            assert listener.is_whole


def test_no_more_listen_than_may(plain_store: Database) -> None:
    """The next one is told so, and has a place when another leaves."""
    with serving(plain_store, most=2, times=QUICK) as served:
        first, second = served.listen(), served.listen()
        assert (first.status, second.status) == (200, 200)
        assert served.listen().status == 503
        first.close()
        wait_until(lambda: served.listen().status == 200, what="a place")


def test_whoever_may_no_longer_listen_is_let_go(plain_store: Database) -> None:
    """A token that was revoked, a session that was closed."""
    with serving(plain_store, times=QUICK) as served:
        listener = served.listen()
        served.allowed[0] = False
        assert listener.next() is None
        assert listener.is_whole


def test_a_stream_lasts_no_longer_than_it_may(plain_store: Database) -> None:
    """So that a client shows its credentials again from time to time."""
    with serving(plain_store, times=StreamTimes(longest=timedelta(seconds=0.3))) as served:
        listener = served.listen()
        assert listener.next() is None
        assert listener.is_whole


@pytest.mark.parametrize("place", ["0-0", "1-0", "9999999-0"], ids=["pruned", "edge", "ahead"])
def test_what_retention_took_is_told_and_not_passed_over(store: Database, place: str) -> None:
    """A listener that was away for too long, or for another store, is told to look at everything anew."""
    run_id = add_run(store, "running")
    for number in range(4):
        change(store, run_id, f"run.number_{number}")
    with store.writing() as connection:
        connection.execute(outbox.outbox.delete().where(outbox.outbox.c.id <= 2))
    with serving(store) as served:
        listener = served.listen("/events", last_id=place)
        first = listener.next()
        assert first is not None
        assert first.event == "reset"
        begun(listener, store, run_id)
        whole = served.listen("/events", last_id="2-0")
        got = whole.next()
        assert got is not None
        assert got.data["event"] == "run.number_2"


def test_a_run_that_is_over_is_told_whole(plain_store: Database) -> None:
    """Its lines, what belongs to its end, and that it is the end; coming back adds nothing but that."""
    run_id = add_run(plain_store, "succeeded")
    for number in range(3):
        add_log_line(plain_store, run_id, f"line {number}")

    async def extras(run: RunView) -> dict[str, dict[str, str]]:
        return {"download": {"of": str(run.id)}}

    with serving(plain_store, extras=extras) as served:
        listener = served.listen(f"/runs/{run_id}/events")
        heard = listener.until(lambda each: each.event == "download")
        change(plain_store, run_id, "run.started", "running")  # the row was ahead of the feed
        heard += listener.until(lambda each: each.event == "end")
        events = [each.event for each in heard]
        assert events == ["snapshot", "log", "log", "log", "download", "state", "end"]
        again = served.listen(f"/runs/{run_id}/events", last_id=listener.last_id)
        assert [each.event for each in again.until(lambda each: each.event == "end")] == ["download", "end"]


def test_a_retried_run_is_not_over(plain_store: Database) -> None:
    """Somebody had it tried again before the stream had ended."""
    run_id = add_run(plain_store, "failed")
    with serving(plain_store) as served:
        listener = served.listen(f"/runs/{run_id}/events")
        listener.until(lambda heard: heard.event == "snapshot")
        wait_until(lambda: served.live.hub.position is not None)
        with plain_store.writing() as connection:
            connection.execute(update(runs).where(runs.c.id == run_id).values(state="queued", finished_at=None))
        change(plain_store, run_id, "run.retrying", "queued")
        listener.until(lambda heard: heard.event == "state")
        change(plain_store, run_id, "run.finished", "failed")
        rest = listener.until(lambda heard: heard.event in ("state", "end"))
        assert rest[-1].event == "state"


def test_an_outage_of_the_store_ends_no_stream(plain_store: Database) -> None:
    """The reader goes on from its place when the store answers again."""
    run_id = add_run(plain_store, "running")
    with serving(plain_store, times=QUICK) as served:
        listener = served.listen()
        begun(listener, plain_store, run_id)
        broken, met = [True], threading.Event()

        def break_it(*_given: object) -> None:
            if broken[0] and threading.current_thread().name == "batchd-feed-reader":
                met.set()
                raise ConnectionError("the store is away")

        event.listen(plain_store.engine, "before_cursor_execute", break_it)
        change(plain_store, run_id, "run.during")
        wait_until(met.is_set, what="the reader to meet the outage")
        broken[0] = False
        assert listener.until(lambda heard: heard.event == "state")[-1].data["event"] == "run.during"
