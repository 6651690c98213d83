"""`context.batches` in a team's own code: each batch commits with its checkpoint, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.errors import JobError, LeaseLost, RunInterrupted
from batchd.store.enqueue import NewRun
from batchd.store.migrate import migrate
from tests.support.cleaning import execute, fetch
from tests.support.job_context import DirectContext
from tests.support.store_rows import add_run

_DOUBLE = text("UPDATE numbers SET doubled = doubled + 2 * n WHERE n = :n")


@pytest.fixture
def numbers(database: Database) -> Database:
    """A database with the numbers 1 to 25."""
    execute(database, "CREATE TABLE numbers (n integer PRIMARY KEY, doubled integer NOT NULL)")
    execute(database, *(f"INSERT INTO numbers VALUES ({n}, 0)" for n in range(1, 26)))
    return database


def double(context: DirectContext, database: Database, **options: Any) -> int:
    """Double every number in batches of 10 and return how many batches there were."""
    seen = 0
    with context.batches(database, table="numbers", size=10, **options) as batches:
        for batch in batches:
            seen += 1
            batch.connection.execute(_DOUBLE, batch.rows)
            batch.count("rows", len(batch.rows))
    return seen


def doubled(database: Database) -> list[int]:
    """The numbers that were doubled, once each if they were."""
    assert fetch(database, "SELECT count(*) FROM numbers WHERE doubled NOT IN (0, 2 * n)") == [0]
    return fetch(database, "SELECT n FROM numbers WHERE doubled = 2 * n ORDER BY n")


def test_the_next_attempt_goes_on_behind_the_last_commit(numbers: Database) -> None:
    """A stop between two batches costs nothing; a walk that is over yields nothing more."""
    context = DirectContext({"app": numbers}, stop_at_check=3)
    with pytest.raises(RunInterrupted):
        double(context, numbers)
    assert doubled(numbers) == list(range(1, 21))
    context = context.next_attempt()
    assert double(context, numbers) == 1
    assert doubled(numbers) == list(range(1, 26))
    assert double(context.next_attempt(), numbers) == 0
    assert context.progressed[-1][:2] == (25, 25)


def test_an_exception_rolls_the_batch_back(numbers: Database) -> None:
    """What the loop did in its batch is gone; the batch before stays."""
    context = DirectContext({"app": numbers})
    with pytest.raises(ZeroDivisionError), context.batches(numbers, table="numbers", size=10) as batches:
        for batch in batches:
            batch.connection.execute(_DOUBLE, batch.rows)
            1 / (11 - batch.rows[0]["n"])
    assert doubled(numbers) == list(range(1, 11))


def test_leaving_the_loop_rolls_the_batch_back(numbers: Database) -> None:
    """A batch counts when the loop comes round, not before."""
    context = DirectContext({"app": numbers})
    with context.batches(numbers, table="numbers", size=10) as batches:
        for batch in batches:
            batch.connection.execute(_DOUBLE, batch.rows)
            if batch.rows[0]["n"] == 11:
                break
    assert doubled(numbers) == list(range(1, 11))
    double(context.next_attempt(), numbers)
    assert doubled(numbers) == list(range(1, 26))


def test_a_newer_attempt_fences_the_older_one_out(numbers: Database) -> None:
    """A frozen attempt that wakes up commits nothing once another has taken over."""
    old = DirectContext({"app": numbers})
    can_overtake = numbers.dialect.name == "postgresql"  # on SQLite nobody writes while a batch is open
    seen: list[int] = []
    with (
        pytest.raises(LeaseLost),
        old.batches(numbers, table="numbers", size=10, transaction=can_overtake) as batches,
    ):
        for batch in batches:
            seen.append(batch.rows[0]["n"])
            if can_overtake:
                batch.connection.execute(_DOUBLE, batch.rows)
            if batch.rows[0]["n"] == 11:
                old.next_attempt().checkpoint(numbers)
    assert seen == [1, 11]
    assert doubled(numbers) == (list(range(1, 11)) if can_overtake else [])
    with old.next_attempt().batches(numbers, table="numbers", size=10) as batches:
        assert next(batches).rows[0]["n"] == 11


def test_two_walks_of_a_run_keep_apart(numbers: Database) -> None:
    """Each goes on by its own name, beside what the job saves itself."""
    context = DirectContext({"app": numbers}, stop_at_check=4)
    with pytest.raises(RunInterrupted):
        assert double(context, numbers, where="n % 2 = 0") == 2
        double(context, numbers, where="n % 2 = 1", name="odd")
    context = context.next_attempt()
    assert double(context, numbers, where="n % 2 = 0") == 0
    assert double(context, numbers, where="n % 2 = 1", name="odd") == 1
    assert doubled(numbers) == list(range(1, 26))


def test_without_a_transaction_a_batch_is_saved_behind_it(numbers: Database) -> None:
    """Nothing is open in the loop; a batch that was interrupted comes again."""
    context = DirectContext({"app": numbers})
    seen: list[int] = []
    for fails_at in (11, None):
        try:
            with context.batches(numbers, table="numbers", size=10, transaction=False) as batches:
                for batch in batches:
                    seen += [row["n"] for row in batch.rows]
                    with pytest.raises(JobError, match="transaction=False"):
                        batch.connection  # noqa: B018
                    assert batch.rows[0]["n"] != fails_at
        except AssertionError:
            context = context.next_attempt()
    assert seen == [*range(1, 21), *range(11, 26)]


def test_a_walk_that_queues_runs_has_its_home_in_the_store(numbers: Database) -> None:
    """The runs and the checkpoint commit together; the walked database is only read."""
    migrate(numbers)
    run_id = add_run(numbers, "running", job=None, kind="own", fence=1)
    context = DirectContext({"app": numbers}, store=numbers, run_id=run_id, stop_at_check=3)
    for stop_at in (3, None):
        context.stop_at_check = stop_at
        try:
            with (
                context.children(on_complete=NewRun(kind="noop")) as children,
                context.batches(numbers, table="numbers", size=10, home=children.database) as batches,
            ):
                for batch in batches:
                    runs = [NewRun(kind="noop", params={"n": row["n"]}, key=str(row["n"])) for row in batch.rows]
                    batch.count("queued", children.add(runs, batch.connection))
        except RunInterrupted:
            context = context.next_attempt()
    assert fetch(numbers, f"SELECT count(*) FROM batchd_runs WHERE parent_id = {run_id}") == [25]
    assert fetch(numbers, "SELECT DISTINCT created_by FROM batchd_runs WHERE parent_id IS NOT NULL") == [CreatedBy.JOB]


_KEYS = st.lists(
    st.tuples(st.integers(0, 3), st.text("aAbB é%'\\", max_size=3), st.one_of(st.none(), st.integers(0, 9))),
    max_size=40,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_KEYS, size=st.integers(1, 12), by_first=st.booleans(), stops=st.lists(st.integers(1, 4), max_size=4))
def test_any_table_is_walked_whole_and_once(
    database: Database, rows: list[tuple[int, str, int | None]], size: int, by_first: bool, stops: list[int]
) -> None:
    """Random composite keys with ties, by the whole key or by its first column, interrupted anywhere."""
    execute(
        database,
        "DROP TABLE IF EXISTS pairs",
        "CREATE TABLE pairs (a integer NOT NULL, b text NOT NULL, c integer, PRIMARY KEY (a, b))",
    )
    if rows:
        with database.writing() as connection:
            insert = text("INSERT INTO pairs VALUES (:a, :b, :c)")
            connection.execute(insert, [{"a": a, "b": b, "c": c} for a, b, c in rows])
    context = DirectContext({"app": database})
    met: list[tuple[int, str, int | None]] = []
    for stop_at in [*stops, None]:
        context = context.next_attempt(stop_at_check=stop_at)
        try:
            with context.batches(database, table="pairs", size=size, key=["a"] if by_first else []) as batches:
                for batch in batches:
                    met += [(row["a"], row["b"], row["c"]) for row in batch.rows]
        except RunInterrupted:
            continue
    with database.reading() as connection:
        expected = [tuple(row) for row in connection.execute(text("SELECT a, b, c FROM pairs ORDER BY a, b"))]
    assert sorted(met, key=expected.index) == expected if by_first else met == expected
