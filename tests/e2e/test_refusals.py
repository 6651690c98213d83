"""What the daemon refuses to start on, what it waits for, and what it tells."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchd.errors import ExitCode
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.postgres import PostgresServer, fresh_database

_JOBS = {"tick": {"kind": "noop", "schedule": "every 1s"}}


def test_a_wrong_config_is_told_in_full(tmp_path: Path) -> None:
    """Exit code 78, and every error at once with its line and the nearest valid name."""
    jobs = {"clean": {"kind": "cleanupp"}, "tick": {"kind": "noop", "schedul": "every 1s", "timezone": "Mars/Olympus"}}
    said = batchd(write_config(tmp_path, {"jobs": jobs}), "run")
    assert said.returncode == ExitCode.CONFIG_INVALID
    text = said.stdout + said.stderr
    for expected in ("cleanupp", "cleanup", "schedul", "Mars/Olympus", "config.toml"):
        assert expected in text


def test_a_second_daemon_on_one_sqlite_file_is_refused(tmp_path: Path) -> None:
    """Exit code 75 and the pid of the one that is there, which goes on."""
    config = write_config(tmp_path, {"store": {"url": f"sqlite:///{tmp_path}/batchd.db"}, "jobs": _JOBS})
    with Daemon(config) as daemon:
        daemon.ready()
        second = batchd(config, "run")
        assert second.returncode == ExitCode.ALREADY_RUNNING
        assert str(daemon.pid) in second.stdout + second.stderr
        assert daemon.stop() == ExitCode.OK


def test_an_unreachable_store_ends_a_daemon_that_may_not_wait(tmp_path: Path) -> None:
    """Under --no-wait the exit code is 69."""
    with closed_port() as port:
        config = write_config(tmp_path, {"store": {"url": f"postgresql://u@127.0.0.1:{port}/none"}, "jobs": _JOBS})
        assert batchd(config, "run", "--no-wait").returncode == ExitCode.STORE_UNREACHABLE


def test_a_store_that_comes_later_is_waited_for(tmp_path: Path, own_server: PostgresServer) -> None:
    """The daemon says that it waits, and is ready soon after the store is."""
    with fresh_database(own_server) as url:
        config = write_config(tmp_path, {"store": {"url": url}, "jobs": _JOBS})
        own_server.stop()
        with Daemon(config) as daemon:
            daemon.wait_for_event("store.waiting")
            assert not daemon.events("service.ready")
            own_server.start()
            daemon.ready()
            assert daemon.stop() == ExitCode.OK


def test_a_daemon_that_waits_for_its_store_can_be_stopped(tmp_path: Path) -> None:
    """SIGTERM while it waits is a clean end."""
    with closed_port() as port:
        config = write_config(tmp_path, {"store": {"url": f"postgresql://u@127.0.0.1:{port}/none"}, "jobs": _JOBS})
        with Daemon(config) as daemon:
            daemon.wait_for_event("store.waiting")
            assert daemon.stop(seconds=10) == ExitCode.OK


def test_a_daemon_whose_store_accepts_and_never_answers_can_be_stopped(tmp_path: Path) -> None:
    """SIGTERM in the middle of a connect that hangs is a clean end, at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        store = {"url": f"postgresql://u@127.0.0.1:{port}/none", "connect_timeout": "60s"}
        with Daemon(write_config(tmp_path, {"store": store, "jobs": _JOBS})) as daemon:
            silent.settimeout(20)
            connection, _ = silent.accept()
            with connection:
                assert daemon.stop(seconds=10) == ExitCode.OK


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port that refuses every connection and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
