"""Two daemons on one PostgreSQL."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import update

from batchd.domain.run import CreatedBy, RunState
from batchd.errors import ExitCode
from batchd.store import control
from batchd.store.schema import runs
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config
from tests.support.store_reading import runs_of, wait_for_state
from tests.support.waiting import wait_until


def test_a_frozen_daemon_does_not_finish_its_run_twice(tmp_path: Path, postgres_url: str) -> None:
    """Its lease over, another takes the run; thawed, it drops what it had and goes on working."""
    jobs = {"nap": {"kind": "sleep", "time": "3s"}}
    config = write_config(tmp_path, {"store": {"url": postgres_url}, "jobs": jobs})
    with Daemon(config) as frozen, opened(postgres_url) as store:
        frozen.ready()
        run_id = control.trigger(store, "nap", {}, created_by=CreatedBy.CLI)
        first = wait_for_state(store, run_id, RunState.RUNNING).run.worker
        frozen.signal(signal.SIGSTOP)
        with store.writing() as connection:
            long_ago = datetime.now(UTC) - timedelta(hours=1)
            connection.execute(update(runs).where(runs.c.id == run_id).values(lease_until=long_ago))
        with Daemon(config) as other:
            finished = wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=90)
            frozen.signal(signal.SIGCONT)
            frozen.wait_for_event("lease.lost", seconds=60)
            again = control.trigger(store, "nap", {}, created_by=CreatedBy.CLI)
            wait_for_state(store, again, RunState.SUCCEEDED)
            assert frozen.stop() == ExitCode.OK
            assert other.stop() == ExitCode.OK
        after = wait_for_state(store, run_id, RunState.SUCCEEDED)
    assert [attempt.outcome for attempt in after.attempts] == ["lost", "succeeded"]
    assert after.run == finished.run
    assert after.run.worker != first


def test_two_daemons_share_the_work(tmp_path: Path, postgres_url: str) -> None:
    """Both run runs of one store, and none twice."""
    jobs = {"nap": {"kind": "sleep", "time": "200ms", "schedule": "every 1s"}} | {
        f"nap-{number}": {"kind": "sleep", "time": "200ms", "schedule": "every 1s"} for number in range(8)
    }
    config = write_config(
        tmp_path, {"daemon": {"workers": 2, "shutdown_grace": "5s"}, "store": {"url": postgres_url}, "jobs": jobs}
    )
    with Daemon(config) as one, Daemon(config) as two, opened(postgres_url) as store:
        one.ready()
        two.ready()

        def shared() -> bool:
            done = [run for job in jobs for run in runs_of(store, job) if run.state == RunState.SUCCEEDED]
            return len({run.worker for run in done}) == 2

        wait_until(shared, what="runs by both daemons")
        assert one.stop() == ExitCode.OK
        assert two.stop() == ExitCode.OK
