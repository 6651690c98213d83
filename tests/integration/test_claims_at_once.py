"""The claim in one statement: it takes what the claim in steps would take, or nothing, and reads no more than that."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from batchd.db.engine import Database
from batchd.db.lock_number import lock_number
from batchd.domain.queue import QueueOrder, QueueRules
from batchd.domain.run import CreatedBy
from batchd.store import claims_at_once
from batchd.store.claimed import ClaimRequest
from batchd.store.claims import claim, claim_and_look
from batchd.store.claims_at_once import take_at_once
from batchd.store.migrate import migrate
from batchd.store.queue_control import pause
from tests.support.cleaning import execute, fetch
from tests.support.databases import open_database
from tests.support.plans import indexes_used_by, runs_read_by
from tests.support.store_rows import RETRY, add_run, add_schedule

MINUTE = timedelta(minutes=1)
QUEUES = ("a", "b", "é€ 'quoted' \"twice\" %s %(most)s \\", "")
KEYS = (None, None, None, "k1", "k2")
_BEGINNING = "\nWITH RECURSIVE\neach_queue (name)"
SETTLED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(postgres_url: str) -> Iterator[Database]:
    """A store with its tables."""
    opened = open_database(postgres_url, is_store=True)
    migrate(opened)
    add_schedule(opened)
    yield opened
    opened.close()


def request(limit: int = 10, room: dict[str, int] | None = None, **more: Any) -> ClaimRequest:
    """What a worker asks for."""
    return ClaimRequest("w", limit, MINUTE, room or {}, **more)


def give_back_all(store: Database) -> None:
    """Have the runs wait again as if nobody had claimed them."""
    execute(
        store,
        "UPDATE batchd_runs SET state = 'queued', attempt = attempt - 1, fence = fence - 1, worker = NULL,"
        " lease_until = NULL, started_at = NULL WHERE worker = 'w'",
    )
    execute(store, "DELETE FROM batchd_attempts")


@pytest.mark.parametrize("seed", range(40))
def test_it_takes_what_the_steps_take(store: Database, seed: int) -> None:
    """Whatever waits, however many are wanted: the same runs, in the same order, with the same word about the rest."""
    rng = random.Random(seed)
    queues = rng.sample(QUEUES, rng.randint(1, 3))
    deadlines = rng.choice([[None], [None], [None, None, SETTLED, store.dialect.now_plus(50)]])
    for _ in range(rng.randint(1, 30)):
        add_run(
            store,
            queue=rng.choice(queues),
            priority=rng.randint(-1, 1),
            available_at=SETTLED + timedelta(seconds=rng.randint(0, 3))
            if rng.random() < 0.8
            else store.dialect.now_plus(50),
            concurrency_key=rng.choice(KEYS),
            timeout_seconds=rng.choice([None, 0.5, 600.0]),
            scheduled_for=rng.choice([None, SETTLED + timedelta(seconds=rng.random() * 9e6)]),
            params=rng.choice([{}, {"a%s": ["\\u0000 %(most)s", 1e300, None]}]),
            retry=rng.choice([RETRY, {}, []]),
            start_deadline_at=rng.choice(deadlines),
            fence=rng.choice([0, 0, 3]),
            attempt=rng.choice([0, 0, 2]),
            limit_key=rng.choice([None, "x"]),
            created_by=rng.choice(list(CreatedBy)).value,
            job=None,
        )
    if rng.random() < 0.3:
        add_run(store, "running", job=None, concurrency_key="k1", worker="other")
    if is_paused := rng.random() < 0.3:
        pause(store, queues[0])
    room = {queue: rng.randint(0, 4) for queue in queues if rng.random() < 0.4}
    rules = {queue: QueueRules(priority=rng.randint(-1, 1)) for queue in queues if rng.random() < 0.4}
    wanted = request(rng.randint(1, 12), room, rules=rules)
    at_once = take_at_once(store, wanted)
    assert at_once is not None
    give_back_all(store)
    store.dialect.changes_in_ctes = False
    in_steps, expected = claim_and_look(store, wanted)
    are_late = (
        len(deadlines) > 1
    )  # the steps have accounted for them, and have looked behind them if they took no other
    assert at_once.claims == in_steps or (are_late and not at_once.claims)
    if len(in_steps) < wanted.limit and not is_paused and not are_late:
        assert (at_once.next_in == timedelta(0), at_once.next_in is None) == (
            expected == timedelta(0),
            expected is None,
        )


def test_it_writes_what_the_steps_write(store: Database) -> None:
    """The run's row, its attempt and, for a listener who wants to know, the notice are the same."""
    execute(
        store,
        "INSERT INTO batchd_listeners (name, events, wants_started, wants_progressed, last_id, created_at, seen_at)"
        " VALUES ('l', '', true, false, 0, now(), now())",
    )
    add_run(store, params={"a": 1}, available_at=SETTLED)
    seen = []
    for is_at_once in (True, False):
        store.dialect.changes_in_ctes = is_at_once
        assert len(claim(store, request())) == 1
        tables = [fetch(store, f"SELECT to_jsonb(t) FROM batchd_{name} t") for name in ("runs", "attempts", "outbox")]
        volatile = {"id", "started_at", "lease_until", "created_at"}
        seen.append([{key: row[key] for key in row.keys() - volatile} for rows in tables for row in rows])
        assert all(row["started_at"] and row["lease_until"] for row in tables[0])
        assert all(row["started_at"] for row in tables[1])
        give_back_all(store)
        execute(store, "DELETE FROM batchd_outbox")
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3


@pytest.mark.parametrize(
    ("columns", "rules", "order"),
    [
        ({"mutex": "m"}, {}, QueueOrder.STRICT),
        ({"waits_for": "mutex:m"}, {}, QueueOrder.STRICT),
        ({"timeout_seconds": float("nan")}, {}, QueueOrder.STRICT),
        ({"created_by": "nobody knows"}, {}, QueueOrder.STRICT),
        ({"attempt": 2**31 - 1}, {}, QueueOrder.STRICT),
        ({}, {"default": QueueRules(max_running=1)}, QueueOrder.STRICT),
        ({"queue": "other"}, {}, QueueOrder.WEIGHTED),
    ],
    ids=["mutex", "parked", "timeout", "maker", "attempt", "shared", "weighted"],
)
def test_what_is_not_usual_is_left_to_the_steps(
    store: Database, columns: dict[str, Any], rules: dict[str, QueueRules], order: QueueOrder
) -> None:
    """They decide, and what they can claim is claimed; what cannot be read is put aside, and holds up no other."""
    execute(store, "ALTER TABLE batchd_runs DROP CONSTRAINT IF EXISTS batchd_runs_created_by_check")
    wanted = request(rules=rules, order=order)
    odd = add_run(store, job=None, **columns)
    plain = add_run(store, job=None)
    if "attempt" not in columns:
        taken = take_at_once(store, wanted)
        assert taken is not None
        assert (taken.claims, taken.is_all) == ((), False)
    claimed = {each.run_id for each in claim(store, wanted)} | {each.run_id for each in claim(store, wanted)}
    is_broken = columns.keys() & {"timeout_seconds", "created_by", "attempt"}
    (state,) = fetch(store, f"SELECT state FROM batchd_runs WHERE id = {odd}")
    if rules:
        assert claimed == {odd}
    else:
        assert claimed == ({plain} if is_broken else {odd, plain})
    assert state == ("quarantined" if is_broken else "running")


@pytest.mark.parametrize("is_at_once", [True, False], ids=["at-once", "in-steps"])
@pytest.mark.parametrize("odd", ["'1e5000'", "repeat('[', 3000) || repeat(']', 3000)"], ids=["digits", "depth"])
def test_what_python_cannot_read_holds_up_no_other(store: Database, odd: str, *, is_at_once: bool) -> None:
    """It is put aside, also where that shows only after the commit; the others have no attempt used up."""
    store.dialect.changes_in_ctes = is_at_once
    broken, plain = add_run(store, job=None), add_run(store, job=None)
    execute(store, f"UPDATE batchd_runs SET params = jsonb_build_object('a', ({odd})::jsonb) WHERE id = {broken}")
    assert [(each.run_id, each.attempt) for each in claim(store, request())] == [(plain, 1)]
    assert fetch(store, "SELECT state FROM batchd_runs ORDER BY id") == ["quarantined", "running"]
    unfinished = fetch(store, "SELECT run_id FROM batchd_attempts WHERE outcome IS NULL")
    assert unfinished == [plain]


def test_moments_beyond_the_calendar_are_claimed(store: Database) -> None:
    """As their claim in steps does: they read as the calendar's ends."""
    add_run(store, job=None, available_at=SETTLED)
    execute(store, "UPDATE batchd_runs SET scheduled_for = '-infinity', available_at = '0044-03-15 BC'")
    taken = take_at_once(store, request())
    assert taken is not None
    give_back_all(store)
    store.dialect.changes_in_ctes = False
    assert taken.claims == claim(store, request())
    assert len(taken.claims) == 1


def test_several_keys_are_taken_by_one_claim_at_a_time(store: Database) -> None:
    """Two that took them in different orders would deadlock; what needs one key at most waits for nobody."""
    keyed = [add_run(store, job=None, concurrency_key=key) for key in "ab"]
    plain = add_run(store, job=None)
    with psycopg.connect(store.settings.url) as another:
        another.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number("keys"),))
        for room, expected in (({}, [plain]), ({"default": 1}, keyed[:1])):
            taken = take_at_once(store, request(room=room))
            assert taken is not None
            assert [each.run_id for each in taken.claims] == expected
    assert [each.run_id for each in claim(store, request())] == keyed[1:]


def test_a_run_that_is_too_late_is_missed(store: Database) -> None:
    """It is not claimed, and the steps account for it; one that had begun before may go on."""
    past = store.dialect.now_plus(-1)
    late = add_run(store, job=None, start_deadline_at=past)
    begun = add_run(store, job=None, start_deadline_at=past, fence=1)
    first = take_at_once(store, request())
    assert first is not None
    assert [each.run_id for each in first.claims] == [begun]
    assert first.next_in == timedelta(0)
    assert claim(store, request()) == ()
    assert fetch(store, f"SELECT state FROM batchd_runs WHERE id = {late}") == ["missed"]


def test_runs_of_a_paused_queue_are_not_waited_for(store: Database) -> None:
    """Nobody looks again before a run of another queue is due; to resume a queue wakes the daemons."""
    add_run(store, job=None, queue="aside")
    pause(store, "aside")
    assert claim_and_look(store, request()) == ((), None)
    add_run(store, job=None, available_at=store.dialect.now_plus(40))
    _, expected = claim_and_look(store, request())
    assert expected is not None
    assert timedelta(seconds=30) < expected < MINUTE


@pytest.mark.parametrize("room", [{}, {"flood": 3}, {"flood": 0}], ids=["open", "limited", "full"])
@pytest.mark.parametrize("is_paused", [False, True], ids=["served", "paused"])
@pytest.mark.parametrize("due", ["-1 hour", "1 hour"], ids=["due", "ahead"])
def test_it_reads_what_it_takes(store: Database, room: dict[str, int], due: str, *, is_paused: bool) -> None:
    """Its plan, made when the store was empty and kept, goes by the indexes when it has been flooded since."""
    wanted = request(room=room)
    claim(store, wanted)
    execute(
        store,
        "INSERT INTO batchd_runs (kind, queue, priority, params, available_at, retry, state, max_attempts, created_at,"
        f" created_by) SELECT 'noop', 'flood', 0, '{{}}', now() + interval '{due}', '{{}}', 'queued', 3, now(), 'api'"
        " FROM generate_series(1, 20000)",
    )
    add_run(store, job=None, queue="small", priority=-9)
    if is_paused:
        pause(store, "flood")
    # Each run that it takes is looked at by the search, its lock, the update, and once more for what else waits.
    assert runs_read_by(store, _BEGINNING, given(room)) <= 80


@pytest.mark.parametrize("states", [["succeeded"], ["succeeded", "queued"]], ids=["history", "both"])
def test_its_plan_goes_by_the_indexes_of_claims(store: Database, states: list[str]) -> None:
    """Also one that is made when the tables have just been emptied, and every index looks as cheap."""
    for state in states:
        finished_at = "now()" if state == "succeeded" else "NULL"
        execute(
            store,
            "INSERT INTO batchd_runs (kind, queue, priority, params, available_at, retry, state, max_attempts,"
            f" created_at, created_by, finished_at) SELECT 'noop', 'q', 0, '{{}}', now(), '{{}}', '{state}', 3, now(),"
            f" 'api', {finished_at} FROM generate_series(1, 2000)",
        )
    execute(store, "ANALYZE batchd_runs")
    execute(store, "DELETE FROM batchd_runs")
    with psycopg.connect(store.settings.url, autocommit=True) as connection:
        connection.execute("VACUUM batchd_runs")
    claim(store, request())
    used = indexes_used_by(store, _BEGINNING, given({}))
    keys = {"batchd_runs_running", "batchd_runs_concurrency"}  # either tells which keys are held
    assert used - keys == {"batchd_runs_claim", "batchd_runs_available", "batchd_runs_parked"}


def given(room: dict[str, int]) -> list[Any]:
    """The values of the claim's statement, in their order."""
    told = {"queues": json.dumps({name: {"room": count} for name, count in room.items()}), "worker": "w"}
    values = told | {"most": 10, "is_strict": True, "lease_seconds": 60.0}
    return [values[name] for name in dict.fromkeys(re.findall(r"%\((\w+)\)s", claims_at_once._CLAIM))]
