"""Unique keys: what keep, replace and a period mean, and that they hold under many at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchd import Client, RunRequest
from batchd.db.engine import Database
from batchd.store.claimed import ClaimRequest
from batchd.store.claims import claim
from batchd.store.migrate import migrate
from batchd.store.unique_runs import OnConflict, UniqueRow, _find
from tests.support.cleaning import execute, fetch
from tests.support.databases import open_database
from tests.support.enqueue_doors import daemons_door
from tests.support.plans import plan_of, rows_read, statements
from tests.support.store_rows import add_schedule, run_row

LONG = timedelta(hours=1)


@pytest.fixture
def store(database: Database) -> Database:
    """A store with a job."""
    migrate(database)
    add_schedule(database, "index", kind="noop", params={})
    execute(database, "CREATE TABLE orders (number integer)")
    return database


@pytest.fixture(params=["client", "daemon"])
def enqueue(request: pytest.FixtureRequest, store: Database, database_url: str) -> Iterator[Callable[..., Any]]:
    """Enqueue one run, as an application does and as the daemon itself does."""
    with Client(database_url) as client:

        def ask(name: str, params: dict[str, Any], **options: Any) -> Any:
            if request.param == "client":
                return client.enqueue(name, params, **options)
            (enqueued,) = daemons_door(database_url, [RunRequest(name, params, **options)], True)
            return enqueued

        yield ask


def take(store: Database) -> int:
    """Claim one run and return its id."""
    (claimed,) = claim(store, ClaimRequest("w", 1, LONG, {}))
    return claimed.run_id


def end(store: Database, run_id: int, state: str) -> None:
    """Let the run end."""
    now = "clock_timestamp()" if store.dialect.name == "postgresql" else "'2026-01-01T00:00:00.000000Z'"
    execute(
        store, f"UPDATE batchd_runs SET state = '{state}', lease_until = NULL, finished_at = {now} WHERE id = {run_id}"
    )


def test_an_unfinished_run_is_kept(store: Database, enqueue: Callable[..., Any]) -> None:
    """Waiting or running; once it has ended, however it did, the key is free."""
    first = enqueue("index", {"n": 1}, unique_key="k")
    assert enqueue("index", {"n": 2}, unique_key="k").outcome == "kept"
    assert take(store) == first.id
    kept = enqueue("index", {"n": 3}, unique_key="k", on_conflict="replace")
    assert (kept.id, kept.outcome, kept.is_new) == (first.id, "kept", False)
    assert run_row(store, first.id)["params"] == {"n": 1}
    assert enqueue("index", {}, unique_key="other").is_new
    end(store, first.id, "succeeded")
    assert enqueue("index", {"n": 4}, unique_key="k").id > first.id


def test_replace_changes_a_run_that_has_not_begun(store: Database, enqueue: Callable[..., Any]) -> None:
    """Params, time and settings become the new ones, the row stays the same; a run of another kind is left alone."""
    first = enqueue("index", {"n": 1}, unique_key="k", delay="1h", tags=["old"], queue="low")
    before = run_row(store, first.id)
    again = enqueue("index", {"m": 2}, unique_key="k", on_conflict="replace", max_attempts=9, metadata={"a": 1})
    assert (again.id, again.outcome) == (first.id, "replaced")
    after = run_row(store, first.id)
    assert (after["params"], after["max_attempts"], after["queue"]) == ({"m": 2}, 9, "default")
    assert (after["tags"], after["metadata"]) == (None, {"a": 1})
    assert after["available_at"] < before["available_at"]
    assert after["created_at"] == before["created_at"]
    other = enqueue("noop", {"x": 1}, unique_key="k", on_conflict="replace")
    assert (other.id, other.outcome) == (first.id, "kept")
    assert run_row(store, first.id)["params"] == {"m": 2}


def test_a_run_that_waits_for_its_next_attempt_is_not_replaced(store: Database, enqueue: Callable[..., Any]) -> None:
    """Its checkpoint belongs to the params that it was made with."""
    first = enqueue("index", {"n": 1}, unique_key="k")
    take(store)
    execute(store, f"UPDATE batchd_runs SET state = 'queued', lease_until = NULL WHERE id = {first.id}")
    assert enqueue("index", {"n": 2}, unique_key="k", on_conflict="replace").outcome == "kept"
    assert run_row(store, first.id)["params"] == {"n": 1}


def test_within_a_period_a_run_that_succeeded_counts_too(store: Database, enqueue: Callable[..., Any]) -> None:
    """From when it was queued; one that failed or was cancelled does not, nor does one from before the period."""
    first = enqueue("index", {"n": 1}, unique_key="k", unique_period="1h")
    for state in ("failed", "cancelled"):
        end(store, first.id, state)
        newer = enqueue("index", {"n": 2}, unique_key="k", unique_period="1h")
        assert newer.is_new
        first = newer
    end(store, first.id, "succeeded")
    kept = enqueue("index", {"n": 3}, unique_key="k", unique_period="1h", on_conflict="replace")
    assert (kept.id, kept.outcome) == (first.id, "kept")
    assert run_row(store, first.id)["params"] == {"n": 2}
    execute(store, f"UPDATE batchd_runs SET created_at = '2026-01-01T00:00:00.000000Z' WHERE id = {first.id}")
    assert enqueue("index", {}, unique_key="k", unique_period="1h").is_new


def test_keys_within_one_call(store: Database, database_url: str) -> None:
    """The first of a key is queued, those after it find it; the answers are in the order of the requests."""
    wanted = [
        RunRequest("noop", {"n": 1}, unique_key="b"),
        RunRequest("noop", {"n": 2}),
        RunRequest("noop", {"n": 3}, unique_key="a"),
        RunRequest("noop", {"n": 4}, unique_key="b", on_conflict="replace"),
        RunRequest("noop", {"n": 5}, unique_key="a", unique_period=60),
    ]
    with Client(database_url) as client:
        came_to = client.enqueue_many(wanted)
    assert [each.outcome.value for each in came_to] == ["queued", "queued", "queued", "replaced", "kept"]
    assert came_to[3].id == came_to[0].id
    assert came_to[4].id == came_to[2].id
    assert [run_row(store, each.id)["params"]["n"] for each in came_to[:3]] == [4, 2, 3]


def test_very_many_keys_with_a_period_need_few_locks(postgres_url: str) -> None:
    """More of them than the server's lock table holds."""
    database = open_database(postgres_url)
    migrate(database)
    with Client(postgres_url) as client:
        wanted = [RunRequest("noop", unique_key=f"k{n}", unique_period=60) for n in range(1_100)]
        assert all(each.is_new for each in client.enqueue_many(wanted))
        with database.writing() as connection:
            again = client.enqueue_many(wanted, connection=connection)
            locks = connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            assert locks.scalar_one() == 1
    assert not any(each.is_new for each in again)
    database.close()


def test_a_key_is_found_by_its_indexes(store: Database) -> None:
    """Among twenty thousand runs that wait or have succeeded, each with a key of its own."""
    numbers = (
        "SELECT n FROM generate_series(1, 20000) AS n"
        if store.dialect.name == "postgresql"
        else "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000) SELECT n FROM s"
    )
    now = "'2026-01-01T00:00:00.000000Z'"
    execute(
        store,
        "INSERT INTO batchd_runs (kind, queue, priority, params, available_at, retry, state, max_attempts,"
        " created_at, created_by, unique_key, finished_at)"
        f" SELECT 'noop', 'q', 0, '{{}}', {now}, '{{}}', CASE n % 2 WHEN 0 THEN 'queued' ELSE 'succeeded' END, 3,"
        f" {now}, 'sql', 'k' || n, CASE n % 2 WHEN 0 THEN NULL ELSE CAST({now} AS {store_time(store)}) END"
        f" FROM ({numbers}) AS numbers",
    )
    row = UniqueRow(0, "k7", LONG, OnConflict.KEEP, {})
    with statements(store) as seen, store.reading() as connection:
        assert _find(connection, store.dialect, row) is None
    (statement, parameters) = seen[0]
    if store.dialect.name == "postgresql":
        assert rows_read(store, statement, parameters) <= 2
    else:
        steps = [step for step in plan_of(store, statement, parameters) if "batchd_runs" in step]
        assert len(steps) == 2
        assert all("batchd_runs_unique" in step for step in steps)


def store_time(store: Database) -> str:
    """The type of the store's moments."""
    return "timestamptz" if store.dialect.name == "postgresql" else "text"


_ENQUEUER = """
import sys, threading
from batchd import Client, RunRequest
url, period = sys.argv[1], sys.argv[2] or None
print("ready", flush=True)
sys.stdin.readline()
queued = []
def ask():
    with Client(url) as client:
        for turn in range(10):
            for key in (("a", "b") if turn % 2 else ("b", "a")):
                came_to = client.enqueue(
                    "noop", {"turn": turn}, unique_key=key, unique_period=period, on_conflict="replace"
                )
                if came_to.is_new:
                    queued.append(came_to.id)
threads = [threading.Thread(target=ask) for _ in range(5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*queued)
"""


@pytest.mark.parametrize("period", ["", "1h"], ids=["unfinished", "period"])
@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_keys_hold_under_20_enqueuers_at_once(request: pytest.FixtureRequest, url: str, period: str) -> None:
    """Four processes with five threads each, while the runs are executed; never is there a second run beside one."""
    store_url = request.getfixturevalue(url)
    store = open_database(store_url)
    migrate(store)
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", _ENQUEUER, store_url, period],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    stop = threading.Event()
    executed: list[int] = []

    def execute_runs() -> None:
        while not stop.is_set():
            for claimed in claim(store, ClaimRequest("w", 5, LONG, {})):
                end(store, claimed.run_id, "succeeded")
                executed.append(claimed.run_id)
            stop.wait(0.005)

    for program in programs:
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
    worker = threading.Thread(target=execute_runs)
    worker.start()
    try:
        said = [program.communicate("go\n", timeout=100) for program in programs]
    finally:
        stop.set()
        worker.join()
    assert [(program.returncode, err) for program, (_out, err) in zip(programs, said, strict=True)] == [(0, "")] * 4
    told = sorted(int(run_id) for out, _err in said for run_id in out.split())
    assert told == fetch(store, "SELECT id FROM batchd_runs ORDER BY id"), "each run that was told is there, once"
    counts = fetch(store, "SELECT count(*) FROM batchd_runs GROUP BY unique_key")
    assert len(counts) == 2
    assert counts == [1, 1] if period else min(counts) > 1
    assert len(told) - len(executed) <= 2, "one of each key may still wait"
    store.close()
