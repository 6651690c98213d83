"""sql on real databases: statements, transactions, parameters, answers, and going on after an attempt that ended."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.errors import JobError, RunInterrupted
from batchd.jobs.kinds.sql import KIND
from tests.support.cleaning import execute, fetch
from tests.support.job_context import DirectContext

_TABLE = "CREATE TABLE carts (id integer PRIMARY KEY, state text, at text)"


def sql(database: Database, script: Any, context: DirectContext | None = None, **params: Any) -> JsonObject:
    """Execute a script on the database "app" and return the run's result."""
    given = {"database": "app", "statements": script, **params}
    return KIND.run(KIND.params.model_validate(given), context or context_on(database))


def context_on(database: Database, **facts: Any) -> DirectContext:
    """A context with that one database."""
    return DirectContext({"app": database}, **facts)


def states(database: Database) -> list[Any]:
    """What the carts' states are, by id."""
    return fetch(database, "SELECT state FROM carts ORDER BY id")


def test_statements_are_executed_in_order_with_their_parameters(database: Database) -> None:
    """Values are bound, whatever they hold; rows are counted, and the last answer is kept."""
    evil = "x'; DROP TABLE carts; --"
    script = """
        CREATE TABLE carts (id integer PRIMARY KEY, state text, at text);
        INSERT INTO carts VALUES (1, :state, '12:30'), (2, 'a;b', NULL), (3, '100%', ':state');
        UPDATE carts SET at = :state WHERE id > :least;
        SELECT id, state FROM carts WHERE state LIKE '%' AND id <= :most ORDER BY id;
    """
    result = sql(database, script, params={"state": evil, "least": 2, "most": 2})
    assert result["statements"] == 4
    assert result["rows_affected"] == 4
    assert [each["rows"] for each in result["each"]] == [None, 3, 1, 2]
    assert result["last"] == {"columns": ["id", "state"], "rows": [[1, evil], [2, "a;b"]], "row_count": 2}
    assert fetch(database, "SELECT at FROM carts ORDER BY id") == ["12:30", None, evil]


def test_the_run_itself_is_among_the_parameters(database: Database) -> None:
    """Its id, its job, and its fire time as a moment that the database compares with its own."""
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    context = context_on(database, scheduled_for=moment)
    script = "SELECT CAST(:run_id AS integer), CAST(:job AS text), :scheduled_for > CURRENT_TIMESTAMP"
    ((run_id, job, is_later),) = sql(database, script, context)["last"]["rows"]
    assert (run_id, job, bool(is_later)) == (context.run_id, "test-job", True)


def test_one_transaction_is_all_or_nothing(database: Database) -> None:
    """A statement that fails undoes those before it; the message says which and why."""
    execute(database, _TABLE)
    script = "INSERT INTO carts VALUES (1, 'a', NULL);\n\nINSERT INTO nowhere VALUES (1)"
    with pytest.raises(JobError, match=r"statement 2 \(line 3, 'INSERT INTO nowhere"):
        sql(database, script)
    assert states(database) == []


def test_each_statement_alone_stays_done(database: Database) -> None:
    """The next attempt goes on with the one that failed, and with the counts that there were."""
    execute(database, _TABLE)
    script = ["INSERT INTO carts VALUES (1, 'a', NULL)", "INSERT INTO later VALUES (1)", "UPDATE carts SET state = 'b'"]
    context = context_on(database)
    with pytest.raises(JobError, match="statement 2") as caught:
        sql(database, script, context, transaction="each")
    assert not caught.value.retryable, "a table that is missing stays missing"
    assert states(database) == ["a"]
    execute(database, "CREATE TABLE later (id integer)")
    resumed = context.next_attempt()
    result = sql(database, script, resumed, transaction="each")
    assert (result["statements"], result["rows_affected"]) == (3, 3)
    assert states(database) == ["b"]
    assert resumed.log.events() == ["sql.resumed"]


@pytest.mark.parametrize("mode", ["one", "each"])
def test_what_is_committed_is_not_done_again(database: Database, mode: str) -> None:
    """The attempt died between the commit and the record of its end: the next one has nothing to do."""
    execute(database, _TABLE, "INSERT INTO carts VALUES (1, '', NULL)")
    script = "UPDATE carts SET state = state || 'x'; SELECT state FROM carts"
    context = context_on(database)
    first = sql(database, script, context, transaction=mode)
    assert sql(database, script, context.next_attempt(), transaction=mode) == first
    assert states(database) == ["x"]


def test_a_script_that_was_changed_under_a_run_is_refused(database: Database, tmp_path: Path) -> None:
    """Statements that are committed are other ones now; those behind them may change."""
    file = tmp_path / "nightly.sql"
    context = context_on(database)
    file.write_text(f"{_TABLE}; SELECT nonsense;")
    with pytest.raises(JobError, match="statement 2"):
        sql(database, None, context, file=str(file), transaction="each")
    file.write_text(f"{_TABLE}; SELECT 7;")
    context = context.next_attempt()
    assert sql(database, None, context, file=str(file), transaction="each")["last"]["rows"] == [[7]]
    file.write_text("SELECT 1; SELECT 7;")
    with pytest.raises(JobError, match="have changed since"):
        sql(database, None, context.next_attempt(), file=str(file), transaction="each")


def test_a_stop_between_two_statements_undoes_what_is_not_committed(database: Database) -> None:
    """One transaction: nothing stays. Each its own: the next attempt goes on."""
    execute(database, _TABLE)
    script = [f"INSERT INTO carts VALUES ({number}, 'a', NULL)" for number in range(4)]
    for mode, left in (("one", 0), ("each", 2)):
        context = context_on(database, stop_at_check=3)
        with pytest.raises(RunInterrupted):
            sql(database, script, context, transaction=mode)
        assert len(states(database)) == left
    assert sql(database, script, context.next_attempt(), transaction="each")["rows_affected"] == 4
    assert len(states(database)) == 4


def test_statements_that_refuse_a_transaction_are_executed_without_one(database: Database) -> None:
    """VACUUM, and on PostgreSQL an index that is made beside the writers."""
    execute(database, _TABLE)
    script = "INSERT INTO carts VALUES (1, 'a', NULL); VACUUM; SELECT state FROM carts"
    if database.dialect.name == "postgresql":
        script += "; CREATE INDEX CONCURRENTLY carts_state ON carts (state)"
    result = sql(database, script, transaction="none")
    assert result["rows_affected"] == 1
    assert result["last"]["rows"] == [["a"]]
    with pytest.raises(JobError, match="VACUUM"):
        sql(database, "VACUUM")


def test_the_last_answer_is_bounded_and_read_to_its_end(database: Database) -> None:
    """A few rows are kept of many, long cells are cut, and all are counted."""
    execute(database, _TABLE)
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
    execute(database, f"{numbers} INSERT INTO carts SELECT i, 'a', NULL FROM n")
    last = sql(database, "SELECT id, :long AS word FROM carts", params={"long": "y" * 5_000}, max_rows=3)["last"]
    assert last["row_count"] == 5_000
    assert len(last["rows"]) == 3
    assert len(last["rows"][0][1]) < 1_100
    wide = sql(database, "SELECT id, :long AS word FROM carts", params={"long": "y" * 900}, max_rows=1000)["last"]
    assert 100 < len(wide["rows"]) < 300, "not more than a run's row takes"
    result = sql(database, f"{numbers} SELECT i FROM n", max_rows=0)
    assert (result["last"]["row_count"], result["last"]["rows"]) == (5_000, [])


def test_rows_that_a_change_returns_are_counted_as_changed(database: Database) -> None:
    """RETURNING is an answer, and a change."""
    execute(database, _TABLE)
    result = sql(database, "INSERT INTO carts VALUES (1, 'a', NULL), (2, 'b', NULL) RETURNING id")
    assert result["rows_affected"] == 2
    assert result["last"]["rows"] == [[1], [2]]


@pytest.mark.parametrize(
    ("script", "changed", "returned"),
    [
        ("SELECT replace(state, 'a', 'b') FROM carts", 0, 2),
        ("WITH few AS (SELECT * FROM carts) SELECT id FROM few", 0, 2),
        (
            "WITH few AS (SELECT id FROM carts WHERE id = 1) DELETE FROM carts WHERE id IN (SELECT id FROM few)",
            1,
            None,
        ),
        ("UPDATE carts SET at = NULL", 2, None),
    ],
)
def test_questions_and_changes_are_told_apart(
    database: Database, script: str, changed: int, returned: int | None
) -> None:
    """By what they do, and not by a word that stands in them."""
    execute(database, _TABLE, "INSERT INTO carts VALUES (1, 'a', NULL), (2, 'a', NULL)")
    result = sql(database, script)
    assert result["rows_affected"] == changed
    assert (result["last"] or {"row_count": None})["row_count"] == returned


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("SELECT 1; COMMIT", r"statement 3 .* is about transactions"),
        ("SELECT :a, :b", "needs a value for :b"),
        ("SELECT 'a", "line 1: the quote ' is not closed"),
        ("-- nothing", "holds no statement"),
    ],
)
def test_scripts_that_cannot_work_fail_before_anything_is_done(database: Database, script: str, said: str) -> None:
    """And at once: another attempt cannot help."""
    with pytest.raises(JobError, match=said) as caught:
        sql(
            database,
            f"CREATE TABLE never (id integer); {script}" if "nothing" not in script else script,
            params={"a": 1},
        )
    assert not caught.value.retryable
    with pytest.raises(JobError, match="never"):
        sql(database, "SELECT * FROM never")


def test_check_asks_the_database_and_changes_nothing(database: Database) -> None:
    """Each statement is explained, up to the first that may make what the rest needs."""
    assert KIND.check_connected is not None

    def complaints(script: str, **params: Any) -> list[str]:
        assert KIND.check_connected is not None
        given = KIND.params.model_validate({"database": "app", "statements": script, **params})
        return [message for _, message in KIND.check_connected(given, {"app": database})]

    execute(database, _TABLE)
    right = "INSERT INTO carts VALUES (:id, :state, :job); DELETE FROM carts WHERE id = :id; SELECT * FROM carts"
    assert complaints(right, params={"id": 1, "state": "a"}) == []
    found = complaints("DELETE FROM cart; SELECT stat FROM carts; CREATE TABLE x (id integer); SELECT * FROM x")
    assert len(found) == 2
    assert found[0].startswith("statement 1 (line 1, 'DELETE FROM cart'): ")
    assert "stat" in found[1]
    assert states(database) == []
