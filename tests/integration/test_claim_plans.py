"""A claim costs the same whether ten runs wait or a hundred thousand, in its queue or in one that is full."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.domain.queue import QueueRules, Rate
from batchd.store.claimed import ClaimRequest
from batchd.store.claims import claim, next_available_at, next_due_in
from batchd.store.migrate import migrate
from batchd.store.planning import add_due
from tests.support.cleaning import execute
from tests.support.plans import changes, plan_of, rows_read, runs_found_by, statements
from tests.support.store_rows import add_run, add_schedule, run_row

_WAITING = 20_000
_FULL = {"flood": 0}


@pytest.fixture
def store(database: Database) -> Database:
    """A store in whose queue `flood` very many runs wait, which no statistics know of yet; claims go in steps."""
    database.dialect.changes_in_ctes = False
    migrate(database)
    add_schedule(database)
    numbers = (
        f"SELECT n FROM generate_series(1, {_WAITING}) AS n"
        if database.dialect.name == "postgresql"
        else f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {_WAITING}) SELECT n FROM s"
    )
    now = "clock_timestamp()" if database.dialect.name == "postgresql" else "'2026-01-01T00:00:00.000000Z'"
    execute(
        database,
        "INSERT INTO batchd_runs (schedule_id, kind, queue, priority, params, available_at, retry, state, max_attempts,"
        " created_at, created_by, parent_id, child_key)"
        f" SELECT 'nightly', 'noop', 'flood', 0, '{{}}', {now}, '{{}}', 'queued', 3, {now}, 'job', 1, n"
        f" FROM ({numbers}) AS numbers",
    )
    return database


def check_plans(store: Database, seen: list[tuple[str, Any]]) -> None:
    """Each statement reads a few rows, through the indexes of the claim, whatever waits."""
    for statement, parameters in seen:
        if store.dialect.name == "postgresql":
            assert rows_read(store, statement, parameters) <= 40, statement
        else:
            steps = [step for step in plan_of(store, statement, parameters) if "batchd_runs" in step]
            indexed = ("claim", "concurrency", "available", "parked", "running", "mutex")
            assert all(any(f"batchd_runs_{index}" in step for index in indexed) for step in steps), steps
            assert not any("TEMP B-TREE" in step for step in plan_of(store, statement, parameters)), statement


@pytest.mark.parametrize("room", [{}, {"flood": 3}, _FULL], ids=["open", "limited", "full"])
def test_a_claim_reads_what_it_takes(store: Database, room: dict[str, int]) -> None:
    """It goes by the index of each queue, and skips a full one whole."""
    wanted = add_run(store, queue="small", priority=-9)
    with statements(store) as seen:
        got = claim(store, ClaimRequest("w", 10, timedelta(seconds=30), room))
        next_available_at(store)
        assert next_due_in(store) is None
    assert len(got) == {None: 10, 3: 4, 0: 1}[room.get("flood")]
    assert (run_row(store, wanted)["state"] == "running") is bool(room)
    assert len(seen) >= 2
    check_plans(store, seen)


def test_what_is_claimed_is_written_by_its_id(store: Database) -> None:
    """Neither the leases nor the rows of the attempts are looked for among all runs."""
    with changes(store) as seen:
        assert len(claim(store, ClaimRequest("w", 10, timedelta(seconds=30), {}))) == 10
    assert [statement.split()[:2] for statement, _ in seen] == [["UPDATE", "batchd_runs"], ["INSERT", "INTO"]]
    by_id = "batchd_runs_pkey" if store.dialect.name == "postgresql" else "INTEGER PRIMARY KEY (rowid=?)"
    assert [runs_found_by(store, *each) for each in seen] == [{by_id}, {by_id}]


def test_runs_that_are_not_due_cost_the_others_nothing(store: Database) -> None:
    """The index passes over them by itself, whatever their priority."""
    later = "now() + interval '1 hour'" if store.dialect.name == "postgresql" else "'2099-01-01T00:00:00.000000Z'"
    execute(store, f"UPDATE batchd_runs SET available_at = {later}, priority = id % 3")
    wanted = add_run(store, queue="flood", priority=-9)
    with statements(store) as seen:
        got = claim(store, ClaimRequest("w", 10, timedelta(seconds=30), {}))
        next_available_at(store)
        due_in = next_due_in(store)
    assert due_in is not None
    assert due_in > timedelta(minutes=50)
    assert [claimed.run_id for claimed in got] == [wanted]
    check_plans(store, seen)


def test_a_flood_that_waits_for_a_mutex_or_a_key_costs_the_others_nothing(store: Database) -> None:
    """It is put aside once; from then on a claim neither reads it nor the limits that are full more than once each."""
    rules = {"flood": QueueRules(max_running_per_key=1), "small": QueueRules(max_running=3, rate=Rate(9, timedelta(1)))}
    execute(store, "UPDATE batchd_runs SET limit_key = 'big', mutex = 'm' WHERE queue = 'flood'")
    request = ClaimRequest("w", 10, timedelta(seconds=30), {}, rules)
    assert [claimed.queue for claimed in claim(store, request)] == ["flood"]
    for _ in range(_WAITING // 5_000 + 1):
        assert claim(store, request) == ()
    wanted = [add_run(store, queue=queue) for queue in ("small", "other", "small")]
    with statements(store) as seen:
        got = claim(store, request)
        next_available_at(store)
    assert sorted(claimed.run_id for claimed in got) == wanted
    assert len(seen) >= 6
    check_plans(store, seen)


def test_planning_reads_no_run_that_has_ended(store: Database) -> None:
    """How many of a job's runs are unfinished is counted in the index of those, however many have ended."""
    execute(store, "UPDATE batchd_runs SET state = 'succeeded', finished_at = created_at")
    execute(store, "UPDATE batchd_schedules SET next_run_at = '2026-01-01T00:00:00.000000Z'")
    now = datetime(2026, 10, 1, tzinfo=UTC)
    with statements(store) as seen:
        assert add_due(store, ["nightly"], now).schedules == 1
    (counting,) = [(sql, given) for sql, given in seen if sql.startswith("SELECT") and "GROUP BY" in sql]
    if store.dialect.name == "postgresql":
        assert rows_read(store, *counting) <= 40
    else:
        assert "batchd_runs_unfinished" in str(plan_of(store, *counting))


def test_the_best_runs_of_all_queues_come_first(store: Database) -> None:
    """Priority decides among queues, then age; a limit of a queue is kept."""
    first = add_run(store, queue="other", priority=9)
    low = add_run(store, queue="other", priority=-9)
    got = claim(store, ClaimRequest("w", 5, timedelta(seconds=30), {"flood": 3}))
    assert got[0].run_id == first
    assert [claimed.queue for claimed in got] == ["other", "flood", "flood", "flood", "other"]
    assert got[-1].run_id == low


def test_a_row_whose_time_cannot_be_read_holds_up_no_other(database: Database) -> None:
    """Somebody edited it into nonsense (only SQLite lets them): it is kept for a person, the others are claimed."""
    if database.dialect.name == "postgresql":
        pytest.skip("PostgreSQL's types allow no such row")
    migrate(database)
    add_schedule(database)
    broken = add_run(database, queue="a")
    well = [add_run(database, queue=queue) for queue in ("a", "b")]
    execute(database, f"UPDATE batchd_runs SET available_at = '0 nonsense' WHERE id = {broken}")
    got = claim(database, ClaimRequest("w", 10, timedelta(seconds=30), {}))
    assert sorted(claimed.run_id for claimed in got) == well
    assert run_state(database, broken) == "quarantined"


def run_state(store: Database, run_id: int) -> str:
    """The state of a run that cannot be read as a whole."""
    with store.reading() as connection:
        return str(connection.exec_driver_sql(f"SELECT state FROM batchd_runs WHERE id = {run_id}").scalar_one())
