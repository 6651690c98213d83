"""What alerts ask of the ledger costs the same whatever its history holds."""

from __future__ import annotations

from datetime import UTC, datetime

from batchd.db.engine import Database
from batchd.domain.queue import QueueLimits
from batchd.store import alert_facts, control
from batchd.store.migrate import migrate
from tests.support.cleaning import execute
from tests.support.plans import plan_of, rows_read, statements
from tests.support.store_rows import add_run, add_schedule

_HISTORY = 20_000


def _with_history(store: Database) -> None:
    """A job with a long history of successes, of which statistics know."""
    migrate(store)
    add_schedule(store)
    is_postgres = store.dialect.name == "postgresql"
    numbers = (
        f"SELECT n FROM generate_series(1, {_HISTORY}) AS n"
        if is_postgres
        else f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {_HISTORY}) SELECT n FROM s"
    )
    now = "clock_timestamp()" if is_postgres else "'2026-01-01T00:00:00.000000Z'"
    execute(
        store,
        "INSERT INTO batchd_runs (schedule_id, kind, queue, priority, params, available_at, retry, state, max_attempts,"
        " created_at, started_at, finished_at, progress_done, created_by)"
        f" SELECT 'nightly', 'noop', 'default', 0, '{{}}', {now}, '{{}}', 'succeeded', 3, {now}, {now}, {now}, 5, 'job'"
        f" FROM ({numbers}) AS numbers",
    )
    execute(store, "ANALYZE batchd_runs")


def test_no_question_reads_the_history(database: Database) -> None:
    """Of twenty thousand runs each reads a hundred at most, through an index."""
    _with_history(database)
    newest = add_run(database, "running", started_at=datetime.now(UTC))
    add_run(database, "queued", job=None)
    with statements(database) as seen:
        assert "nightly" in alert_facts.last_successes(database, {"nightly"})
        assert "nightly" in alert_facts.last_successes(database, {"nightly"}, before_run=newest)
        assert len(alert_facts.last_durations(database, "nightly")) == 100
        assert alert_facts.last_row_counts(database, "nightly", newest) == [5] * 10
        assert [run.id for run in alert_facts.running(database)] == [newest]
        assert alert_facts.waiting_since(database, 3_600, QueueLimits()) == {}
        assert set(alert_facts.run_facts(database, {newest})) == {newest}
    assert len(seen) == 7
    for statement, parameters in seen:
        if database.dialect.name == "postgresql":
            assert rows_read(database, statement, parameters) <= 110, statement
        else:
            steps = [step for step in plan_of(database, statement, parameters) if "batchd_runs" in step]
            assert all(" USING " in step for step in steps), (statement, steps)


def test_jobs_are_read_again_when_one_changed(database: Database) -> None:
    """Added, paused, resumed: each shows in the mark, and a look at a fire does not."""
    migrate(database)
    add_schedule(database)
    marks = [alert_facts.jobs_mark(database)]
    assert alert_facts.jobs_mark(database) == marks[0]
    execute(database, "UPDATE batchd_schedules SET next_run_at = updated_at")
    assert alert_facts.jobs_mark(database) == marks[0]
    add_schedule(database, "weekly")
    marks.append(alert_facts.jobs_mark(database))
    for change in (control.pause, control.resume):
        change(database, "nightly")
        marks.append(alert_facts.jobs_mark(database))
    assert len(set(marks)) == 4
