"""Start, stop, and what becomes of work in between, with real processes."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import ExitCode
from batchd.store import control
from tests.e2e.conftest import Urls
from tests.support.app_table import CLEANUP, GOES, STAYS, count_victims, make_victims, opened
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.processes import own_megabytes
from tests.support.store_reading import detail_of, runs_of, wait_for_state
from tests.support.waiting import wait_until


def _config(folder: Path, urls: Urls, jobs: dict[str, Any], **daemon: object) -> Path:
    return write_config(
        folder,
        {
            "daemon": {"shutdown_grace": "5s", **daemon},
            "store": {"url": urls.store},
            "databases": {"app": {"url": urls.app}},
            "jobs": jobs,
        },
    )


def _start(config: Path, store: Database, job: str) -> tuple[Daemon, int]:
    """Start a daemon and a run of the job; return once the run is at work."""
    daemon = Daemon(config)
    try:
        daemon.ready()
        run_id = control.trigger(store, job, {}, created_by=CreatedBy.CLI)
        daemon.wait_for_event("run.started", run_id=run_id)  # claimed is not begun: it might be given back untouched
        wait_for_state(store, run_id, RunState.RUNNING)
    except BaseException:
        daemon.kill()
        raise
    return daemon, run_id


@pytest.fixture
def store(urls: Urls) -> Iterator[Database]:
    """The daemon's store, to look at."""
    with opened(urls.store) as database:
        yield database


def test_a_first_start_leaves_no_trace_of_the_migration(tmp_path: Path, urls: Urls) -> None:
    """What makes the tables takes its 17 MB along, and no process stays behind."""
    empty = Urls(urls.dialect, urls.app, urls.app)
    config = _config(tmp_path, empty, {"tick": {"kind": "noop", "schedule": "every 1s"}})
    with Daemon(config, fresh=True) as daemon:
        daemon.wait_for_event("store.migrated")
        daemon.wait_for_event("run.finished")
        assert own_megabytes(daemon.pid) < 62
        children = [file.read_text() for file in Path(f"/proc/{daemon.pid}/task").glob("*/children")]
        assert "".join(children) == ""
        assert daemon.stop() == ExitCode.OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_told_to_stop_says_goodbye(tmp_path: Path, urls: Urls, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end a ready daemon with exit code 0 and without an error."""
    config = _config(tmp_path, urls, {"tick": {"kind": "noop", "schedule": "every 1s"}})
    with Daemon(config, fresh=True) as daemon:
        daemon.ready()
        assert daemon.stop(number) == ExitCode.OK
        assert daemon.events("service.stopped")
        assert [record for record in daemon.records if record["level"] in ("error", "critical")] == []


def test_one_second_schedules_fire_every_second(tmp_path: Path, urls: Urls, store: Database) -> None:
    """The fires of a running daemon follow each other second by second."""
    config = _config(tmp_path, urls, {"tick": {"kind": "noop", "schedule": "every 1s"}})
    with Daemon(config) as daemon:
        daemon.ready()
        wait_until(lambda: len(runs_of(store, "tick")) >= 4, what="4 fires")
        assert daemon.stop() == ExitCode.OK
    moments = [run.scheduled_for for run in reversed(runs_of(store, "tick"))]
    gaps = {(after - before).total_seconds() for before, after in itertools.pairwise(moments) if before and after}
    assert gaps == {1.0}


def test_a_stop_in_a_cleanup_costs_nothing(tmp_path: Path, urls: Urls, store: Database) -> None:
    """A stop gives the run back unused; the next daemon goes on from its checkpoint and deletes exactly the rest."""
    make_victims(urls.app, going=2_000)
    config = _config(tmp_path, urls, {"clean": CLEANUP})
    daemon, run_id = _start(config, store, "clean")
    with daemon:
        wait_until(lambda: count_victims(urls.app, GOES) < 1_900, what="some chunks")
        assert daemon.stop() == ExitCode.OK
    given_back = detail_of(store, run_id)
    assert given_back.run.state == RunState.QUEUED
    assert given_back.run.attempt == 0
    assert [attempt.outcome for attempt in given_back.attempts] == ["released"]
    assert 0 < count_victims(urls.app, GOES) < 2_000
    with Daemon(config) as daemon:
        finished = wait_for_state(store, run_id, RunState.SUCCEEDED)
        assert daemon.stop() == ExitCode.OK
    assert finished.run.attempt == 1
    assert finished.run.result is not None
    assert finished.run.result["rows_deleted"] == 2_000
    assert count_victims(urls.app, GOES) == 0
    assert count_victims(urls.app, STAYS) == 1_000


def test_a_run_that_ends_during_the_grace_is_recorded_as_it_ended(tmp_path: Path, urls: Urls, store: Database) -> None:
    """A run that does not look up but ends in time has succeeded."""
    config = _config(tmp_path, urls, {"nap": {"kind": "sleep", "time": "2s", "stubborn": True}})
    daemon, run_id = _start(config, store, "nap")
    with daemon:
        assert daemon.stop() == ExitCode.OK
    assert detail_of(store, run_id).run.state == RunState.SUCCEEDED


def test_a_stubborn_run_is_given_back_when_the_grace_is_over(tmp_path: Path, urls: Urls, store: Database) -> None:
    """A thread that never looks up does not keep the daemon alive, and its run is not lost."""
    config = _config(tmp_path, urls, {"nap": {"kind": "sleep", "time": "60s", "stubborn": True}}, shutdown_grace="1s")
    daemon, run_id = _start(config, store, "nap")
    with daemon:
        began = time.monotonic()
        assert daemon.stop(seconds=20) == ExitCode.OK
        assert time.monotonic() - began < 12
    given_back = detail_of(store, run_id).run
    assert (given_back.state, given_back.attempt) == (RunState.QUEUED, 0)


def test_a_second_signal_stops_at_once(tmp_path: Path, urls: Urls, store: Database) -> None:
    """Whoever insists does not wait for the grace; the run goes on with the next daemon."""
    jobs = {"nap": {"kind": "sleep", "time": "4s", "stubborn": True}}
    config = _config(tmp_path, urls, jobs, shutdown_grace="60s")
    daemon, run_id = _start(config, store, "nap")
    with daemon:
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("service.draining")
        began = time.monotonic()
        assert daemon.stop(signal.SIGTERM) == ExitCode.UNEXPECTED
        assert time.monotonic() - began < 2
    with Daemon(config) as daemon:
        wait_for_state(store, run_id, RunState.SUCCEEDED)
        assert daemon.stop() == ExitCode.OK


def test_a_killed_daemons_run_goes_on_with_the_next(tmp_path: Path, urls: Urls, store: Database) -> None:
    """The next daemon on the machine sees that the process is gone and does not wait for the lease."""
    make_victims(urls.app, going=2_000)
    config = _config(tmp_path, urls, {"clean": CLEANUP})
    daemon, run_id = _start(config, store, "clean")
    with daemon:
        wait_until(lambda: count_victims(urls.app, GOES) < 1_900, what="some chunks")
        daemon.kill()
    with Daemon(config) as daemon:
        assert daemon.wait_for_event("worker.dead_found")["runs"] == [run_id]
        finished = wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=40)
        assert daemon.stop() == ExitCode.OK
    assert [attempt.outcome for attempt in finished.attempts] == ["lost", "succeeded"]
    assert count_victims(urls.app, GOES) == 0
    assert count_victims(urls.app, STAYS) == 1_000


def test_a_trigger_reaches_a_running_daemon_within_a_second(tmp_path: Path, urls: Urls, store: Database) -> None:
    """From the command's commit to the start of the attempt, by the store's own clock."""
    config = _config(tmp_path, urls, {"tick": {"kind": "noop"}})
    with Daemon(config) as daemon:
        daemon.ready()
        time.sleep(1)
        for _ in range(3):
            said = batchd(config, "trigger", "tick", "--wait")
            assert said.returncode == ExitCode.OK, said.stderr
        assert daemon.stop() == ExitCode.OK
    for run in runs_of(store, "tick"):
        assert run.started_at is not None
        assert (run.started_at - run.created_at).total_seconds() < 1


def test_a_retry_by_hand_goes_on_from_the_checkpoint(tmp_path: Path, urls: Urls, store: Database) -> None:
    """What a failed run had done is done: the retry finishes the rest, and the result counts both."""
    make_victims(urls.app, going=2_000)
    with opened(urls.app) as app, app.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE child (victim integer NOT NULL REFERENCES victims (id))")
        connection.exec_driver_sql("INSERT INTO child SELECT max(id) - 1000 FROM victims")
    config = _config(tmp_path, urls, {"clean": {**CLEANUP, "pause": "1ms", "retry": {"max_attempts": 1}}})
    daemon, run_id = _start(config, store, "clean")
    with daemon:
        failed = wait_for_state(store, run_id, RunState.FAILED)
        assert "child" in (failed.run.error or "")
        assert 0 < count_victims(urls.app, GOES) < 2_000
        with opened(urls.app) as app, app.writing() as connection:
            connection.exec_driver_sql("DELETE FROM child")
        assert batchd(config, "retry", str(run_id)).returncode == ExitCode.OK
        finished = wait_for_state(store, run_id, RunState.SUCCEEDED)
        assert daemon.stop() == ExitCode.OK
    assert finished.run.result is not None
    assert finished.run.result["rows_deleted"] == 2_000


def test_a_relative_path_is_relative_to_the_config_wherever_the_daemon_is_started(tmp_path: Path, urls: Urls) -> None:
    """Systemd starts services in the root folder: that must not change where an export goes."""
    job = {"kind": "csv_export", "database": "app", "query": "SELECT 1 AS one", "path": "out/one.csv"}
    config = _config(tmp_path, urls, {"export": job})
    (tmp_path / "out").mkdir()
    make_victims(urls.app, staying=1, going=1)
    with Daemon(config, folder=Path("/")) as daemon, opened(urls.store) as store:
        daemon.ready()
        run_id = control.trigger(store, "export", {}, created_by=CreatedBy.CLI)
        wait_for_state(store, run_id, RunState.SUCCEEDED)
        assert daemon.stop() == 0
    assert (tmp_path / "out" / "one.csv").read_text() == "one\n1\n"
