"""A changed config, taken over by the running daemon, with real processes."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.errors import ExitCode
from batchd.service.control_client import ask_reload
from batchd.store import control
from tests.e2e.conftest import Urls
from tests.support.app_table import opened
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.notify_socket import NotifySocket
from tests.support.store_reading import runs_of, wait_for_state
from tests.support.waiting import wait_until

TICK = {"kind": "noop", "schedule": "every 1s", "overlap": "allow"}
MINUTE = timedelta(minutes=1)


def _config(folder: Path, urls: Urls, jobs: dict[str, Any], **sections: Any) -> Path:
    store = {"url": urls.store}
    return write_config(folder, {"store": store, "databases": {"app": {"url": urls.app}}, "jobs": jobs, **sections})


@pytest.fixture
def store(urls: Urls) -> Iterator[Database]:
    """The daemon's store, to look at."""
    with opened(urls.store) as database:
        yield database


def test_a_reload_is_whole_or_nothing_and_touches_no_running_job(tmp_path: Path, urls: Urls, store: Database) -> None:
    """Good: the difference, at once. Bad: every error, and the old config goes on. The run in flight sees neither."""
    nap = {"kind": "sleep", "time": "0s", "token": "hunter2-secret"}
    hold = {"kind": "command", "command": ["sh", "-c", "until [ -e go ]; do sleep 0.1; done"], "cwd": str(tmp_path)}
    config = _config(tmp_path, urls, {"hold": hold, "nap": nap, "gone": {"kind": "noop"}, "tick": {"kind": "noop"}})
    with NotifySocket(tmp_path) as systemd, Daemon(config, environment={"NOTIFY_SOCKET": systemd.address}) as daemon:
        daemon.ready()
        assert systemd.wait_for("READY=1")
        run_id = control.trigger(store, "hold", {}, created_by=CreatedBy.CLI)
        wait_for_state(store, run_id, RunState.RUNNING)
        jobs = {
            "hold": {**hold, "timeout": "1s"},
            "nap": {**nap, "token": "another-secret", "queue": "slow"},
            "tick": TICK,
            "new": {"kind": "noop"},
        }
        _config(
            tmp_path,
            urls,
            jobs,
            databases={},
            queues={"slow": {"concurrency": 1}},
            log={"format": "json", "level": "debug"},
        )
        said = batchd(config, "reload", "--json")
        assert said.returncode == ExitCode.OK, said.stderr
        (answer,) = json.loads(said.stdout)["daemons"]
        assert [job["name"] for job in answer["added"]] == ["new"]
        assert {job["name"]: job["keys"] for job in answer["changed"]} == {
            "hold": ["timeout"],
            "nap": ["queue", "token"],
            "tick": ["schedule", "overlap"],
        }
        assert answer["removed"] == ["gone"]
        assert answer["settings"] == ["log.level", "queues.slow", "databases.app"]
        fires = {job["name"] for job in answer["changed"] if job["next_run_at"] is not None}
        assert fires == {"tick"}
        wait_until(lambda: runs_of(store, "tick"), what="a fire of the new schedule")
        reloading = next(message for message in systemd.messages if "RELOADING=1" in message)
        assert any(line.startswith("MONOTONIC_USEC=") for line in reloading)

        good = config.read_text()
        config.write_text(good + "[jobs.wrong]\nkind = 'sleeep'\n[jobs.other]\nkind = 'noop'\nscedule = '@daily'\n")
        bad = batchd(config, "reload")
        assert bad.returncode == ExitCode.CONFIG_INVALID
        lines = len(good.splitlines())
        assert f"config.toml:{lines + 2}: [jobs.wrong] kind" in bad.stdout
        assert f"config.toml:{lines + 5}: [jobs.other] scedule: unknown key" in bad.stdout
        systemd.wait_for("STATUS=4 jobs, 1 running, next tick in less than a minute; the changed config was refused")
        assert "scedule" in daemon.wait_for_event("config.rejected")["reason"]
        config.write_text(good)
        status = wait_until(lambda: _refusal(config), what="the refusal in the store")
        assert "scedule" in status
        before = len(runs_of(store, "tick"))
        wait_until(lambda: len(runs_of(store, "tick")) > before, what="fires of the old config")

        assert daemon.events("database.closed") == []
        (tmp_path / "go").touch()
        assert wait_for_state(store, run_id, RunState.SUCCEEDED).run.attempt == 1
        assert daemon.wait_for_event("database.closed")["database"] == "app"
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: len(daemon.events("config.reloaded")) == 2, what="the reload that SIGHUP asks for")
        wait_until(lambda: _refusal(config) is None, what="the end of the refusal")
        assert daemon.stop() == ExitCode.OK
    assert "hunter2-secret" not in daemon.output
    assert "another-secret" not in daemon.output


def _slots(config: Path) -> int:
    found: int = json.loads(batchd(config, "status", "--json").stdout)["daemons"][0]["slots"]
    return found


def _refusal(config: Path) -> str | None:
    (worker,) = json.loads(batchd(config, "status", "--json").stdout)["daemons"]
    error: str | None = worker["config_error"]
    return error


def test_thirty_reloads_under_a_burst_lose_no_fire_and_double_none(tmp_path: Path, urls: Urls, store: Database) -> None:
    """Jobs that stay fire second by second, while another changes and a third comes and goes."""
    steady = {f"steady-{number}": TICK for number in range(4)}

    def write(number: int) -> Path:
        jobs: dict[str, Any] = {**steady, "varied": {**TICK, "priority": number % 2}}
        if number % 3 == 0:
            jobs["fleeting"] = TICK
        databases = {"app": {"url": urls.app, "pool_size": 2 + number % 2}}
        return _config(tmp_path, urls, jobs, databases=databases)

    with Daemon(write(0)) as daemon:
        daemon.ready()
        for number in range(1, 31):
            config = write(number)
            (answer,) = ask_reload(config, {}, MINUTE)
            assert answer.ok, answer
            assert "varied" in [job.name for job in answer.changed]
            if number % 10 == 0:
                seen = len(runs_of(store, "steady-0"))
                wait_until(lambda: len(runs_of(store, "steady-0")) > seen + 1, what="fires between reloads")  # noqa: B023
        assert daemon.stop() == ExitCode.OK
        assert daemon.events("run.failed") == []
        assert daemon.events("run.quarantined") == []
    for job in (*steady, "varied"):
        fires = [run.scheduled_for for run in reversed(runs_of(store, job)) if run.scheduled_for is not None]
        assert len(fires) > 5
        assert {(after - before).total_seconds() for before, after in itertools.pairwise(fires)} == {1.0}, job


def test_reloads_at_once_come_one_after_the_other_and_a_stop_ends_them(tmp_path: Path, urls: Urls) -> None:
    """A burst of SIGHUPs is one or two reloads; one that meets a stop neither hangs nor keeps the daemon."""
    config = _config(tmp_path, urls, {"tick": TICK})
    with Daemon(config) as daemon:
        daemon.ready()
        for _ in range(20):
            daemon.signal(signal.SIGHUP)
        assert daemon.stop() == ExitCode.OK
        assert 1 <= len(daemon.events("config.reloaded")) + len(daemon.events("service.stopped")) <= 21
    assert batchd(config, "reload").returncode == ExitCode.UNEXPECTED
    assert not (tmp_path / "control.sock").exists()


@pytest.mark.parametrize("urls", ["sqlite"], indirect=True)
def test_what_only_a_restart_can_take_over_is_told_or_refused(tmp_path: Path, urls: Urls) -> None:
    """More connections to the store wait for the restart; another store is refused, and nothing else is taken over."""
    config = _config(tmp_path, urls, {"tick": {"kind": "noop"}})
    daemon_section = {"shutdown_grace": "5s", "state": str(tmp_path)}
    with Daemon(config) as daemon:
        daemon.ready()
        assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o660
        larger = {"url": urls.store, "pool_size": 9}
        _config(tmp_path, urls, {"tick": {"kind": "noop"}}, daemon={**daemon_section, "workers": 3}, store=larger)
        (answer,) = ask_reload(config, {}, MINUTE)
        assert (answer.ok, answer.settings, answer.restart) == (True, ("daemon.workers",), ("store",))
        wait_until(lambda: _slots(config) == 3, what="the number of threads in the store")
        elsewhere = {"url": f"sqlite:///{tmp_path}/other.db"}
        _config(tmp_path, urls, {"new": {"kind": "noop"}}, daemon=daemon_section, store=elsewhere)
        (answer,) = ask_reload(config, {}, MINUTE)
        assert (answer.ok, answer.exit_code) == (False, ExitCode.CONFIG_INVALID)
        assert "needs a restart" in answer.problems[0]
        config.write_text(config.read_text() + "no toml [")
        (answer,) = ask_reload(config, {}, MINUTE)
        assert "is not TOML" in answer.problems[0]
        config.unlink()
        daemon.signal(signal.SIGHUP)
        refused = wait_until(lambda: daemon.events("config.rejected")[2:], what="a config that is not there")
        assert "there is no config" in refused[0]["reason"]
        assert daemon.stop() == ExitCode.OK


@pytest.mark.parametrize("urls", ["postgresql"], indirect=True)
def test_a_daemon_with_the_older_config_leaves_the_newer_ones_runs_to_it(
    tmp_path: Path, urls: Urls, store: Database
) -> None:
    """It has not the secret of a job that the other daemon's config brought: it puts the run off, unharmed."""
    old, new = tmp_path / "old", tmp_path / "new"
    nap = {"kind": "sleep", "time": "0s", "token": "hunter2-secret"}
    for folder in (old, new):
        folder.mkdir()
    store_of = {"store": {"url": urls.store}}
    first = write_config(old, {**store_of, "daemon": {"state": str(old)}, "jobs": {"tick": {"kind": "noop"}}})
    second = write_config(
        new, {**store_of, "daemon": {"state": str(new)}, "jobs": {"tick": {"kind": "noop"}, "nap": nap}}
    )
    with Daemon(first) as behind:
        behind.ready()
        with Daemon(second) as ahead:
            ahead.ready()
            assert ahead.stop() == ExitCode.OK
        run_id = control.trigger(store, "nap", {}, created_by=CreatedBy.CLI)
        behind.wait_for_event("run.snoozed", run_id=run_id)
        first.write_text(second.read_text().replace(str(new), str(old)))
        (answer,) = ask_reload(first, {}, MINUTE)
        assert [job.name for job in answer.added] == ["nap"]
        assert wait_for_state(store, run_id, RunState.SUCCEEDED, seconds=40).run.attempt == 1
        assert behind.stop() == ExitCode.OK


@pytest.mark.parametrize("urls", ["sqlite"], indirect=True)
def test_the_hang_up_of_the_first_moment_is_heard_when_the_daemon_is_ready(tmp_path: Path, urls: Urls) -> None:
    """It neither ends the process nor gets lost."""
    config = _config(tmp_path, urls, {"tick": {"kind": "noop"}})
    with Daemon(config, fresh=True) as daemon:
        wait_until(lambda: _has_handler(daemon.pid, signal.SIGHUP), seconds=20, what="a handler for SIGHUP")
        daemon.signal(signal.SIGHUP)
        assert daemon.events("service.starting") == []
        daemon.wait_for_event("config.reloaded", asked_by="SIGHUP", seconds=60)
        assert daemon.stop() == ExitCode.OK


def _has_handler(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
