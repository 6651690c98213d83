"""A real daemon on a store that breaks in every way: nothing is lost or doubled, and the daemon can be stopped."""

from __future__ import annotations

import resource
import time
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import ExitCode
from batchd.store import control
from tests.e2e.ledger import fire_problems, read_fires, read_tries, try_problems
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config
from tests.support.faulty_wire import Fault, FaultyWire
from tests.support.store_reading import runs_of, wait_for_state
from tests.support.waiting import wait_until

SECOND = timedelta(seconds=1)
TICKS = {f"tick-{number}": {"kind": "noop", "schedule": "every 1s", "overlap": "allow"} for number in range(5)}


def assert_complete(store: Database) -> None:
    """Check that each second has one row of each schedule, and that no run succeeded twice."""
    fires = [fire for fire in read_fires(store) if fire.schedule.startswith("tick")]
    assert len({fire.schedule for fire in fires}) == len(TICKS)
    assert fire_problems(fires, every=SECOND, until=min(fire.first for fire in fires) - SECOND) == []
    succeeded = frozenset(fire.run_id for fire in fires if fire.state is RunState.SUCCEEDED)
    mine = {fire.run_id for fire in fires}
    assert try_problems([each for each in read_tries(store) if each.run_id in mine], succeeded) == []


def succeeded(store: Database, job: str = "tick-0") -> int:
    """Return how many runs of the job have succeeded."""
    return sum(run.state == RunState.SUCCEEDED for run in runs_of(store, job))


@pytest.mark.parametrize("step", ["batchd_schedules", "batchd_runs"])
def test_a_store_that_breaks_during_the_start_is_waited_for(tmp_path: Path, postgres_url: str, step: str) -> None:
    """Whatever commit the start had reached, and although it happened, it goes on; an `@reboot` job runs once."""
    with FaultyWire(postgres_url) as wire, opened(postgres_url) as store:
        jobs = {"boot": {"kind": "noop", "schedule": "@reboot", "overlap": "allow"}}
        config = write_config(tmp_path, {"store": {"url": wire.url}, "jobs": jobs})
        wire.break_next_commit(Fault.AFTER, after=f"INSERT INTO {step}")
        with Daemon(config) as daemon:
            daemon.ready()
            assert wire.faults == 1
            assert daemon.events("store.waiting")
            wait_until(lambda: succeeded(store, "boot"), what="the run of the start")
            assert daemon.stop() == ExitCode.OK
        assert len(runs_of(store, "boot")) == 1


def test_every_connection_may_be_terminated_at_any_time(tmp_path: Path, postgres_url: str) -> None:
    """`pg_terminate_backend` on each of the daemon's connections, one after another, under load."""
    config = write_config(tmp_path, {"store": {"url": postgres_url}, "jobs": TICKS})
    admin = psycopg.connect(postgres_url, autocommit=True)
    with admin, Daemon(config) as daemon, opened(postgres_url) as store:
        daemon.ready()
        wait_until(lambda: succeeded(store), what="a first run")
        mine = "datname = current_database() AND application_name = 'batchd store' AND pid <> pg_backend_pid()"
        for (pid,) in admin.execute(f"SELECT pid FROM pg_stat_activity WHERE {mine}").fetchall():
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            before = succeeded(store)
            wait_until(lambda before=before: succeeded(store) > before, seconds=20, what="another run")
        assert daemon.stop() == ExitCode.OK
        assert_complete(store)


def test_a_daemon_whose_store_hangs_can_be_stopped(tmp_path: Path, postgres_url: str) -> None:
    """A connection that neither answers nor breaks keeps no daemon alive beyond its grace and ten seconds."""
    jobs = {**TICKS, "nap": {"kind": "sleep", "time": "60s"}}
    with FaultyWire(postgres_url) as wire, opened(postgres_url) as store:
        config = write_config(tmp_path, {"daemon": {"shutdown_grace": "1s"}, "store": {"url": wire.url}, "jobs": jobs})
        with Daemon(config) as daemon:
            daemon.ready()
            run_id = control.trigger(store, "nap", {}, created_by=CreatedBy.CLI)
            wait_for_state(store, run_id, RunState.RUNNING)
            wire.fall_silent()
            began = time.monotonic()
            assert daemon.stop(seconds=20) == ExitCode.OK
            assert time.monotonic() - began < 1 + 10
        wire.speak_again()
        with Daemon(
            write_config(tmp_path, {"store": {"url": postgres_url}, "jobs": jobs}, name="direct.toml")
        ) as daemon:
            daemon.ready()
            wait_until(lambda: len(read_tries_of(store, run_id)) == 2, what="the run goes on")
            assert daemon.stop() == ExitCode.OK
        assert_complete(store)


def read_tries_of(store: Database, run_id: int) -> list[object]:
    """Return the run's attempts."""
    return [each for each in read_tries(store) if each.run_id == run_id]


def test_a_full_disk_costs_time_and_nothing_else(tmp_path: Path) -> None:
    """SQLite cannot write for a while: the daemon stays, says so, and afterwards accounts for every second."""
    url = f"sqlite:///{tmp_path}/batchd.db"
    config = write_config(tmp_path, {"store": {"url": url}, "jobs": TICKS})
    with Daemon(config) as daemon, opened(url) as store:
        daemon.ready()
        wait_until(lambda: succeeded(store) >= 2, seconds=20, what="two runs")
        _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
        # A file of the daemon may not grow beyond this: the same to SQLite as a disk without room.
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (4096, hard))
        daemon.wait_for_event("scheduler.pass_failed")
        time.sleep(2)
        assert daemon.code is None
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))
        daemon.wait_for_event("scheduler.recovered", seconds=30)
        before = succeeded(store)
        wait_until(lambda: succeeded(store) >= before + 2, seconds=30, what="two more runs")
        assert daemon.stop() == ExitCode.OK
        assert_complete(store)


def test_a_lock_on_the_sqlite_file_is_waited_for_at_the_start(tmp_path: Path) -> None:
    """Somebody's open transaction delays the daemon and does not end it."""
    url = f"sqlite:///{tmp_path}/batchd.db"
    config = write_config(tmp_path, {"store": {"url": url, "lock_timeout": "500ms"}, "jobs": TICKS})
    with opened(url) as store:
        with store.writing(), Daemon(config) as daemon:
            daemon.wait_for_event("store.waiting")
            assert not daemon.events("service.ready")
            assert daemon.stop(seconds=10) == ExitCode.OK
        with Daemon(config) as daemon:
            daemon.ready()
            wait_until(lambda: succeeded(store), what="a run")
            assert daemon.stop() == ExitCode.OK
