"""Retention removes what is old and keeps what is needed."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update

from batchd.db.engine import Database
from batchd.store import outbox
from batchd.store.history import CHUNK, Pruned, Retention, prune
from batchd.store.migrate import migrate
from batchd.store.schema import outbox as outbox_table
from batchd.store.schema import rate_starts, runs, workers
from tests.support.store_rows import add_attempt, add_log_line, add_run, add_schedule, add_worker
from tests.support.waiting import wait_until

DAY = timedelta(days=1)


@pytest.fixture
def store(database: Database) -> Database:
    """A migrated store with one job."""
    migrate(database)
    add_schedule(database)
    return database


def kept(store: Database) -> list[int]:
    """Return the ids of the runs that are left."""
    with store.reading() as connection:
        return list(connection.execute(select(runs.c.id).order_by(runs.c.id)).scalars())


def test_runs_go_by_count(store: Database) -> None:
    """The newest stay, and every unfinished one, with everything else that belongs to them."""
    waiting = add_run(store, "queued")
    ids = [add_run(store, "succeeded") for _ in range(5)]
    add_attempt(store, ids[0], 1)
    add_log_line(store, ids[0], "x")
    assert prune(store, Retention(2, None, DAY)) == Pruned(3, 0, 0)
    assert kept(store) == [waiting, *ids[3:]]


def test_runs_go_by_age_but_the_newest_of_a_job_stays(store: Database) -> None:
    """However old it is, `jobs` can still say how the job's last run ended."""
    add_schedule(store, "other")
    ids = [add_run(store, "failed"), add_run(store, "succeeded"), add_run(store, "succeeded", "other")]
    with store.writing() as connection:
        connection.execute(update(runs).values(finished_at=store.dialect.now_plus(-90 * 86_400)))
    assert prune(store, Retention(None, 30 * DAY, DAY)).runs == 1
    assert kept(store) == ids[1:]


@pytest.mark.parametrize("keep", [3, {"succeeded": "x"}, {"succeeded": -1}, {"succeeded": 1e300}])
def test_a_rule_of_nonsense_deletes_nothing_and_stops_no_other(store: Database, keep: Any) -> None:
    """Runs of a job whose `keep` somebody edited stay; those of others go."""
    add_schedule(store, "odd", keep=keep)
    ids = [add_run(store, "succeeded", name) for name in ("nightly", "nightly", "odd", "odd")]
    with store.writing() as connection:
        connection.execute(update(runs).values(finished_at=store.dialect.now_plus(-90 * 86_400)))
    assert prune(store, Retention(None, 30 * DAY, DAY)).runs == 1
    assert kept(store) == ids[1:]


def test_old_notices_and_dead_daemons_go(store: Database) -> None:
    """After a day, both."""
    with store.writing() as connection:
        outbox.add(connection, store, "run.finished", None, None, {})
        connection.execute(update(outbox_table).values(created_at=store.dialect.now_plus(-2 * 86_400)))
        outbox.add(connection, store, "run.finished", None, None, {})
    add_worker(store, "dead", heartbeat_age=2 * 86_400)
    add_worker(store, "alive")
    assert prune(store, Retention(None, None, DAY)) == Pruned(0, 1, 1)
    with store.reading() as connection:
        assert connection.execute(select(workers.c.id)).scalars().all() == ["alive"]


def test_a_run_that_is_retried_this_moment_is_not_removed(store: Database) -> None:
    """Retention had it on its list; what the retry commits in between counts."""
    if store.dialect.name == "sqlite":
        return  # the one writer there is does both in turn
    ids = [add_run(store, "failed"), add_run(store, "succeeded")]
    removed: list[Pruned] = []
    pruning = threading.Thread(target=lambda: removed.append(prune(store, Retention(1, None, DAY))))
    with store.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == ids[0]).values(state="queued", finished_at=None))
        pruning.start()
        wait_until(lambda: waits_for_a_lock(store), what="the removal waits for the retry")
    pruning.join(10)
    assert removed
    assert kept(store) == ids


def waits_for_a_lock(store: Database) -> bool:
    """Return whether a DELETE waits for somebody."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE%'"
    with store.reading() as connection:
        return bool(connection.execute(text(waiting)).scalar_one())


def test_runs_go_by_state_and_a_jobs_own_rule_goes_first(store: Database) -> None:
    """Succeeded after a week, failed after 90 days, of one job at once; the newest of each job stays."""
    add_schedule(store, "chatty", keep={"succeeded": 0.0})
    old = [add_run(store, state, "nightly") for state in ("succeeded", "failed", "cancelled")]
    chatty = [add_run(store, state, "chatty") for state in ("succeeded", "failed", "succeeded", "succeeded")]
    adhoc = [add_run(store, "succeeded", None) for _ in range(2)]
    newest = add_run(store, "succeeded", "nightly")
    with store.writing() as connection:
        aged = update(runs).where(runs.c.id.in_([*old, *adhoc, newest]))
        connection.execute(aged.values(finished_at=store.dialect.now_plus(-8 * 86_400)))
        connection.execute(update(runs).where(runs.c.id.in_(chatty)).values(finished_at=store.dialect.now_plus(-1.0)))
    by_state = {"succeeded": 7 * DAY, "failed": 90 * DAY}
    assert prune(store, Retention(None, 30 * DAY, DAY, keep=by_state)).runs == 4
    assert kept(store) == [*old[1:], chatty[1], chatty[3], adhoc[1], newest]


def test_a_count_holds_for_each_job_and_for_runs_without_one(store: Database) -> None:
    """Each keeps its own newest."""
    add_schedule(store, "other")
    mine = [add_run(store, "succeeded") for _ in range(3)]
    others = [add_run(store, "failed", "other") for _ in range(3)]
    adhoc = [add_run(store, "succeeded", None) for _ in range(3)]
    assert prune(store, Retention(2, None, DAY)).runs == 3
    assert kept(store) == [*mine[1:], *others[1:], *adhoc[1:]]


def test_starts_that_count_no_more_go(store: Database) -> None:
    """The rows of a rate's window are no use once it has passed, however many keys there were."""
    with store.writing() as connection:
        for seconds, keys in ((-1.0, CHUNK + 1), (60.0, 1)):
            values = rate_starts.insert().values(counts_until=store.dialect.now_plus(seconds))
            connection.execute(values, [{"name": f"key:x/{key}", "count": 1} for key in range(keys)])
    assert prune(store, Retention(None, None, DAY)).is_partial
    assert not prune(store, Retention(None, None, DAY)).is_partial
    with store.reading() as connection:
        assert len(connection.execute(select(rate_starts.c.id)).all()) == 1
