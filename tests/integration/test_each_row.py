"""each_row calls the target for every row once, commits its effect with the checkpoint, and says what went wrong."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.errors import JobError, RunInterrupted, TargetFailed
from batchd.jobs.kinds.each_row import KIND
from batchd.jobs.targets import TargetInvalid
from batchd.store import rejects
from tests.support import row_targets
from tests.support.cleaning import execute, fetch
from tests.support.job_context import STORE_ID, DirectContext
from tests.support.waiting import wait_until

_PEOPLE = 103


@pytest.fixture
def people(database: Database) -> Database:
    """A database with 103 people in 4 tenants: codes repeat among tenants, ages go from 0 to 102, one has none."""
    execute(database, *row_targets.TABLES.split(";"))
    with database.writing() as connection:
        connection.execute(
            text("INSERT INTO people VALUES (:tenant, :code, :age)"),
            [{"tenant": n % 4, "code": f"c{n // 4:03}", "age": n if n != 50 else None} for n in range(_PEOPLE)],
        )
    return database


def each_row(database: Database, target: str, context: DirectContext | None = None, **params: Any) -> JsonObject:
    """Run the kind over `people` on "app"."""
    filled = {"database": "app", "table": "people", "target": f"tests.support.row_targets:{target}"}
    filled |= {"batch_size": 10} | params
    return KIND.run(KIND.params.model_validate(filled), context or DirectContext({"app": database}))


def effects(database: Database) -> list[tuple[int, str]]:
    """Which rows have had an effect, in order, as often as they had."""
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT tenant, code FROM effects ORDER BY 1, 2"))]


def everybody(database: Database) -> list[tuple[int, str]]:
    """The keys of all people, in order."""
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT tenant, code FROM people ORDER BY 1, 2"))]


@pytest.mark.parametrize("parallel", [1, 4])
def test_every_row_is_handled_once(people: Database, parallel: int) -> None:
    """In batches of the size asked for; what the target counts is added up, and progress reaches its total."""
    context = DirectContext({"app": people})
    result = each_row(people, "record", context, parallel=parallel)
    assert result == {
        "rows": _PEOPLE,
        "batches": 11,
        "rejected": 0,
        "counts": {"recorded": _PEOPLE, "age": sum(range(_PEOPLE)) - 50},
        "dry_run": False,
    }
    assert effects(people) == everybody(people)
    done = [step[0] for step in context.progressed]
    assert done == sorted(done)
    assert all(total is None or total >= step for step, total, _ in context.progressed)
    assert context.progressed[-1][:2] == (_PEOPLE, _PEOPLE)


@pytest.mark.parametrize("parallel", [1, 3])
def test_an_interrupted_run_goes_on_where_it_stopped(people: Database, parallel: int) -> None:
    """Stopped again and again after a batch or two, no row is left out and none is handled twice."""
    context = DirectContext({"app": people}, stop_at_check=2)
    for _ in range(40):
        try:
            result = each_row(people, "record_slowly", context, parallel=parallel, arguments={"seconds": 0.001})
        except RunInterrupted:
            context = context.next_attempt(stop_at_check=3)
            continue
        break
    else:
        pytest.fail("it never came to its end")
    assert context.attempt > 3
    assert result["rows"] == _PEOPLE
    assert effects(people) == everybody(people)


def test_several_batches_run_at_once(people: Database) -> None:
    """As many as asked for, each in a transaction of its own; on SQLite, which has one writer, one after the other."""
    row_targets.most_at_once[0] = 0
    together = 1 if people.dialect.name == "sqlite" else 4
    each_row(people, "record_together", parallel=4, batch_size=5, arguments={"expected": together})
    assert row_targets.most_at_once[0] == together
    assert effects(people) == everybody(people)


def test_an_error_rolls_its_batch_back_and_names_job_table_and_key(people: Database) -> None:
    """What the batches before did stays; the next attempt goes on with the one that failed."""
    context = DirectContext({"app": people}, job="recount")
    with pytest.raises(TargetFailed) as raised:
        each_row(people, "refuse_sevens", context, call_per="batch")
    message = str(raised.value)
    assert "job recount: tests.support.row_targets:refuse_sevens failed on table people" in message
    assert "one of the 10 rows from tenant=1, code=c004 to tenant=1, code=c013: ValueError: age 17 is not" in message
    before = len(effects(people))
    assert before % 10 == 0
    execute(people, "UPDATE people SET age = 1")
    each_row(people, "refuse_sevens", context.next_attempt())
    assert effects(people) == everybody(people)


def test_a_row_at_a_time_names_the_row(people: Database) -> None:
    """With `call_per = "row"` the error names one key, and a row is what the target gets."""
    each_row(people, "record_one", call_per="row", where="tenant = 1")
    assert len(effects(people)) == 26
    with pytest.raises(TargetFailed, match=r"table people, tenant=0, code=c000: TypeError"):
        each_row(people, "refuse_sevens", call_per="row")


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("target", ["refuse_sevens", "break_the_table"])
def test_rejected_rows_are_set_aside_and_the_others_done(people: Database, target: str, parallel: int) -> None:
    """Exactly the rows to blame are kept, with key, reason and record; the effects of the others are there once."""
    execute(people, "CREATE TABLE strict (age integer CHECK (age % 10 <> 7))")
    context = DirectContext({"app": people})
    result = each_row(people, target, context, on_error="reject", parallel=parallel)
    bad = [n for n in range(_PEOPLE) if n % 10 == 7]
    assert result["rejected"] == len(bad)
    assert result["rows"] == _PEOPLE
    kept = rejects.of_run(people, STORE_ID, context.run_id)
    assert sorted(reject.record["age"] for reject in kept if isinstance(reject.record, dict)) == bad
    assert {reject.source for reject in kept} == {"table people"}
    assert all(str(reject.key).startswith("tenant=") and "code=c0" in str(reject.key) for reject in kept)
    assert sorted(reject.number for reject in kept) == list(range(1, len(bad) + 1))
    table = "effects" if target == "refuse_sevens" else "strict"
    ages = fetch(people, f"SELECT age FROM {table} WHERE age IS NOT NULL ORDER BY age")
    assert ages == [n for n in range(_PEOPLE) if n % 10 != 7 and n != 50]


def test_too_many_rejects_end_the_run(people: Database) -> None:
    """They are kept all the same, and trying again would not help."""
    context = DirectContext({"app": people}, job="recount")
    with pytest.raises(JobError, match=r"recount.* more than max_rejects = 3") as raised:
        each_row(people, "refuse_sevens", context, on_error="reject", max_rejects=3)
    assert not raised.value.retryable
    assert len(rejects.of_run(people, STORE_ID, context.run_id)) == 4


def test_a_dry_run_counts_and_touches_nothing(people: Database) -> None:
    """No call, no checkpoint table, no effect."""
    result = each_row(people, "record", where="tenant = 2", dry_run=True)
    assert result["rows_matching"] == 26
    assert (result["rows"], result["counts"]) == (0, {})
    assert effects(people) == []
    with people.reading() as connection:
        assert not people.engine.dialect.has_table(connection, "batchd_checkpoints")


def test_a_target_without_connection_is_called_outside_of_transactions(people: Database) -> None:
    """Its own arguments are passed by name, and its counts are kept."""
    result = each_row(people, "without_connection", arguments={"seen": "looked_at"}, parallel=2)
    assert result["counts"] == {"looked_at": _PEOPLE}


def test_what_the_target_says_in_batchds_words_is_kept(people: Database) -> None:
    """A JobError's advice and its verdict on another attempt go with the error."""
    with pytest.raises(TargetFailed, match="the mail server knows us no more") as raised:
        each_row(people, "give_up")
    assert (raised.value.retryable, raised.value.hint) == (False, "ask the provider")
    with pytest.raises(JobError, match=r"talk_nonsense returned str"):
        each_row(people, "talk_nonsense")


@pytest.mark.parametrize(
    ("target", "arguments", "said"),
    [
        ("tests.support.row_targts:record", {}, "no module tests.support.row_targts"),
        ("tests.support.row_targets:recrod", {}, "no recrod"),
        ("tests.support.row_targets:NOT_A_FUNCTION", {}, "not a function"),
        ("tests.support.row_targets:later", {}, "async"),
        ("tests.support.row_targets:record", {"colour": 1}, "does not fit the call"),
        ("tests.support.plugin.broken_module:work", {}, "importing .* failed: ZeroDivisionError"),
    ],
)
def test_a_target_that_cannot_be_called_is_told_before_anything_happens(
    people: Database, target: str, arguments: dict[str, Any], said: str
) -> None:
    """A wrong module, name, signature or a module that fails: one message each, for the run and for `check`."""
    params = KIND.params.model_validate(
        {"database": "app", "table": "people", "target": target, "arguments": arguments}
    )
    with pytest.raises(TargetInvalid, match=said):
        KIND.run(params, DirectContext({"app": people}))
    assert KIND.check_code is not None
    with pytest.raises(TargetInvalid, match=said):
        KIND.check_code(params)


def test_rows_that_change_meanwhile_are_met_as_documented(people: Database) -> None:
    """Ahead of the walk: as they are when it comes there. Behind it, or beyond the end it had at first: not met."""
    context = DirectContext({"app": people}, stop_at_check=3)
    with pytest.raises(RunInterrupted):
        each_row(people, "record", context)
    met = len(effects(people))
    assert met == 20
    execute(
        people,
        "INSERT INTO people VALUES (9, 'beyond', 1)",
        "INSERT INTO people VALUES (1, 'ahead', 1)",
        "INSERT INTO people VALUES (-1, 'behind', 1)",
        "DELETE FROM people WHERE tenant = 2",
        "UPDATE people SET age = 1000 WHERE tenant = 3 AND code = 'c001'",
    )
    result = each_row(people, "record", context.next_attempt())
    done = effects(people)
    assert (1, "ahead") in done
    assert not {(9, "beyond"), (-1, "behind")} & set(done)
    assert not any(tenant == 2 for tenant, _ in done)
    assert result["rows"] == len(done) == len(set(done)) == _PEOPLE + 1 - 26
    assert fetch(people, "SELECT age FROM effects WHERE tenant = 3 AND code = 'c001'") == [1000]


def test_rows_can_be_locked(people: Database) -> None:
    """A batch waits for a row that somebody else has changed, and gets it as it is then."""
    if people.dialect.name == "sqlite":
        each_row(people, "record", lock_rows=True)  # its one writer's lock covers every row
        assert effects(people) == everybody(people)
        return
    walking = threading.Thread(target=each_row, args=(people, "record"), kwargs={"lock_rows": True})
    with people.writing() as holder:
        holder.execute(text("UPDATE people SET age = 1000 WHERE tenant = 0 AND code = 'c000'"))
        walking.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        wait_until(lambda: fetch(people, waiting) == [1], what="the walk waits for the row")
    walking.join(20)
    assert effects(people) == everybody(people)
    assert fetch(people, "SELECT age FROM effects WHERE tenant = 0 AND code = 'c000'") == [1000]


def test_an_empty_table_is_done_at_once(people: Database) -> None:
    """No call, no error."""
    execute(people, "DELETE FROM people")
    assert each_row(people, "record")["rows"] == 0


def test_a_pool_that_is_too_small_is_told(people: Database) -> None:
    """Threads that would only wait for connections are refused with the numbers."""
    with pytest.raises(JobError, match=r"parallel = 20 needs 21 connections.*pool_size = 10"):
        each_row(people, "record", parallel=20)
