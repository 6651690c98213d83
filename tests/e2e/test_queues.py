"""Limits over two real daemons on one PostgreSQL, and after one of them was killed."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from sqlalchemy import select

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import ExitCode
from batchd.store.enqueue import NewRun, enqueue
from batchd.store.schema import attempts, runs
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config
from tests.support.store_reading import wait_for_state
from tests.support.waiting import wait_until

IDLE = {"idle": {"kind": "noop"}}
PERIOD = timedelta(seconds=2)


def queued(store: Database, queue: str, count: int, nap: str = "200ms", **more: str) -> tuple[int, ...]:
    """Queue so many naps."""
    wanted = [NewRun(kind="sleep", params={"time": nap}, queue=queue, **more) for _ in range(count)]  # type: ignore[arg-type]
    return enqueue(store, wanted, created_by=CreatedBy.CLI)


def spans(store: Database, ids: Sequence[int]) -> list[tuple[datetime, datetime]]:
    """When each of the runs' attempts ran, by the store's clock."""
    with store.reading() as connection:
        found = connection.execute(
            select(attempts.c.started_at, attempts.c.finished_at)
            .where(attempts.c.run_id.in_(ids))
            .order_by(attempts.c.started_at)
        )
        return [(row.started_at, row.finished_at) for row in found]


def most_at_once(found: Sequence[tuple[datetime, datetime]]) -> int:
    """The largest number of spans that have a moment in common."""
    return max(sum(start <= moment < end for start, end in found) for moment, _ in found)


def test_rates_mutexes_and_places_hold_over_two_daemons(tmp_path: Path, postgres_url: str) -> None:
    """Whatever the two claim at the same time; and both have worked."""
    settings = {
        "daemon": {"workers": 4},
        "store": {"url": postgres_url},
        "queues": {"mail": {"rate": "4/2s"}, "few": {"max_running": 3}},
        "jobs": IDLE,
    }
    config = write_config(tmp_path, settings)
    with Daemon(config) as one, Daemon(config) as two, opened(postgres_url) as store:
        one.ready(60)
        two.ready(60)
        mails = queued(store, "mail", 10, "1ms")
        few = queued(store, "few", 10)
        alone = queued(store, "default", 6, mutex="warehouse")
        free = queued(store, "default", 20)
        everything = [*mails, *few, *alone, *free]

        def is_done() -> bool:
            done = select(runs.c.id).where(runs.c.id.in_(everything), runs.c.state == RunState.SUCCEEDED.value)
            with store.reading() as connection:
                return len(connection.execute(done).all()) == len(everything)

        wait_until(is_done, seconds=90, what="all runs")
        assert one.stop() == ExitCode.OK
        assert two.stop() == ExitCode.OK
        with store.reading() as connection:
            workers = set(connection.execute(select(attempts.c.worker)).scalars())
        begun = [start for start, _ in spans(store, mails)]
        assert len(workers) == 2
        # The window counts from the claim's own statement, milliseconds before the attempt's row.
        assert all(
            later - earlier > PERIOD - timedelta(seconds=0.5) for earlier, later in zip(begun, begun[4:], strict=False)
        )
        assert most_at_once(spans(store, few)) <= 3
        assert all(end <= start for (_, end), (start, _) in pairwise(spans(store, alone)))


def test_a_killed_daemons_runs_give_their_places_back(tmp_path: Path, postgres_url: str) -> None:
    """Its run held the only place and the mutex; after kill -9 the next daemon has both, and runs both runs."""
    settings = {
        "store": {"url": postgres_url},
        "queues": {"one": {"max_running": 1}},
        "jobs": IDLE,
    }
    config = write_config(tmp_path, settings)
    with opened(postgres_url) as store:
        with Daemon(config) as killed:
            killed.ready(60)
            (held,) = queued(store, "one", 1, "3s", mutex="m")
            wait_for_state(store, held, RunState.RUNNING, seconds=60)
            waiting = [*queued(store, "one", 1, "1ms"), *queued(store, "default", 1, "1ms", mutex="m")]
            killed.signal(signal.SIGKILL)
            killed.wait()
        with Daemon(config) as other:
            other.ready(60)
            for run_id in (held, *waiting):
                wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=60)
            assert other.stop() == ExitCode.OK
        last = spans(store, [held])[-1]
        for run_id in waiting:
            ((start, _),) = spans(store, [run_id])
            assert start >= last[1] or start < last[0]
