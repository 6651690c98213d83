"""A run of sync goes on where an attempt was stopped, and starts over where that would be wrong; on every dialect."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import inspect

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.db.run_staging import leftovers, staging_name
from batchd.engine.sweeper import Sweeper
from batchd.errors import JobError, RunInterrupted, StopReason
from tests.support.api_server import Api, Reply, api_server
from tests.support.cleaning import execute, fetch
from tests.support.job_context import STORE_ID, DirectContext
from tests.support.store_rows import add_run, add_schedule, make_tables
from tests.support.syncing import expected, rows, sync, user, users_table


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    """An API of 60 users in pages of ten, and the table for them."""
    users_table(database)
    with api_server() as server:
        server.records = [user(number) for number in range(1, 61)]
        yield server


def paged(api: Api) -> dict[str, object]:
    """The params of a run over its pages."""
    return {"url": f"{api.url}/cursor", "records": "items", "paging": {"by": "cursor"}, "batch_size": 7}


def test_pages_that_were_fetched_are_not_fetched_again(database: Database, api: Api) -> None:
    """The attempt after a failed one begins with the page that failed; the result counts both."""
    api.script(None, None, None, Reply(status=404))
    context = DirectContext({"app": database})
    with pytest.raises(JobError):
        sync(database, context, **paged(api), tries=1)
    # A refusal is for good and drops what was fetched; a stop is not.
    api.requests.clear()
    context = DirectContext({"app": database})
    api.script(None, None, None, Reply(status=503))
    with pytest.raises(JobError):
        sync(database, context, **paged(api), tries=1)
    result = sync(database, context.next_attempt(), **paged(api))
    cursors = [request.query.get("cursor", "0") for request in api.requests]
    assert cursors == ["0", "10", "20", "30", "30", "40", "50"]
    assert (result["fetched"], result["added"], result["requests"]) == (60, 60, 7)
    assert rows(database) == expected(api.records)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_stopped_again_and_again_ends_as_one_that_was_not(database: Database, api: Api, seed: int) -> None:
    """Wherever the stops fall, in the fetch or in the write, every count and every row is right."""
    dice = random.Random(seed)
    execute(database, "INSERT INTO users VALUES (3, 'old', NULL, NULL), (70, 'gone', NULL, NULL)")
    params = {**paged(api), "on_missing": "delete", "max_missing": 5}
    context = DirectContext({"app": database}, stop_at_check=dice.randint(1, 12))
    for _ in range(200):
        try:
            result = sync(database, context, **params)
            break
        except RunInterrupted:
            context = context.next_attempt(stop_at_check=dice.randint(1, 12))
    counts = {name: result[name] for name in ("fetched", "added", "changed", "removed", "unchanged", "pages")}
    assert counts == {"fetched": 60, "added": 59, "changed": 1, "removed": 1, "unchanged": 0, "pages": 6}
    assert rows(database) == expected(api.records)
    assert result == sync(database, context.next_attempt(), **params), "a run that is done is not done again"


def test_what_was_fetched_long_ago_is_not_written(database: Database, api: Api) -> None:
    """Beyond `resume_within` the next attempt fetches anew, so that no newer value is set back."""
    context = DirectContext({"app": database})
    api.script(None, None, Reply(status=503))
    with pytest.raises(JobError):
        sync(database, context, **paged(api), tries=1)
    later = datetime.now(tz=SystemClock().now().tzinfo) + timedelta(hours=2)

    class Later:
        def now(self) -> datetime:
            return later

        def monotonic(self) -> float:
            return 0.0

    api.records[0]["name"] = "newer"
    resumed = context.next_attempt(clock=Later())
    assert sync(database, resumed, **paged(api))["fetched"] == 60
    assert "sync.fetched_anew" in resumed.log.events("warning")
    assert rows(database)[0][1] == "newer"


def test_a_staging_table_that_a_crash_emptied_is_noticed(database: Database, api: Api) -> None:
    """PostgreSQL empties unlogged tables when the server crashes: fewer rows than counted means to fetch anew."""
    context = DirectContext({"app": database})
    api.script(None, None, Reply(status=503))
    with pytest.raises(JobError):
        sync(database, context, **paged(api), tries=1)
    execute(database, f"DELETE FROM {staging_name(STORE_ID, context.run_id)}")
    result = sync(database, context.next_attempt(), **paged(api))
    assert (result["fetched"], result["added"]) == (60, 60)
    assert rows(database) == expected(api.records)


def test_a_stop_in_the_write_loses_no_count(database: Database, api: Api) -> None:
    """Chunks that were written before stay counted, and what somebody else wrote meanwhile is left alone."""
    context = DirectContext({"app": database})
    sync_params = paged(api)

    def stopping(*_: object, **__: object) -> None:
        if len(rows(database)) >= 20:
            raise RunInterrupted(StopReason.SHUTDOWN)

    context.wait = stopping  # type: ignore[method-assign]
    with pytest.raises(RunInterrupted):
        sync(database, context, **sync_params, pause="1ms")
    written = len(rows(database))
    assert 20 <= written < 60
    execute(database, "INSERT INTO users VALUES (60, 'somebody else', NULL, NULL)")
    result = sync(database, context.next_attempt(), **sync_params)
    assert result["added"] == 59
    assert rows(database)[-1][1] == "somebody else"


def test_staging_tables_that_nobody_resumes_are_swept_out(database: Database) -> None:
    """Those of runs that succeeded or are gone go; those of others, and of other stores, stay."""
    make_tables(database)
    add_schedule(database)
    done, failed = add_run(database, "succeeded"), add_run(database, "failed")
    other = "11111111-1111-4111-8111-111111111111"
    names = [staging_name(STORE_ID, run) for run in (done, failed, failed + 1_000)]
    names += [f"{names[0]}_todo", staging_name(other, done)]
    execute(database, *(f"CREATE TABLE {name} (a integer)" for name in names))
    Sweeper(database, database, STORE_ID, SystemClock()).sweep()
    with database.reading() as connection:
        assert leftovers(connection, STORE_ID) == {failed: [names[1]]}
        assert inspect(connection).has_table(names[-1])


def test_the_write_takes_short_turns(database: Database, api: Api) -> None:
    """No transaction writes more than a batch, so that nobody waits for the whole sync."""
    sizes: list[int] = []
    context = DirectContext({"app": database})
    before = [0]

    def watching(*_: object) -> None:
        now = fetch(database, "SELECT count(*) FROM users")[0]
        sizes.append(now - before[0])
        before[0] = now

    context.wait = watching  # type: ignore[method-assign]
    sync(database, context, **paged(api), pause="1ms")
    assert sum(sizes) == 60
    assert max(sizes) == 7
