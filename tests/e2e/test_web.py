"""The HTTP surface of a real daemon: a process of its own that lives and dies beside it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from batchd.errors import ExitCode
from batchd.web.server import _LAST_RESORT_SECONDS
from tests.e2e.conftest import Urls
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.launcher import PLUGIN, PROJECT
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, fresh_database
from tests.support.processes import clean_environment, completed, own_megabytes
from tests.support.waiting import wait_until

_JOBS = {
    "tick": {"kind": "noop", "schedule": "every 1s"},
    "asked": {"kind": "noop"},
}
_PLUGIN = {"PYTHONPATH": f"{PROJECT}{os.pathsep}{PLUGIN}"}
_SECRET = "a-secret-of-the-cron-caller"
_get, _post = (functools.partial(ask, timeout=30) for ask in (httpx2.get, httpx2.post))
"""On a machine that has other things to do, an answer may need longer than the client's own five seconds."""

_SUCCESSOR_MEGABYTES = 62
"""A server that took a dead one's place shares nothing with its daemon; rich and the like would be seen here."""


def _config(folder: Path, store: str, **http: Any) -> tuple[Path, str]:
    """A config with HTTP on a free port, and where that is."""
    listen = f"127.0.0.1:{free_port()}"
    sections = {"store": {"url": store}, "http": {"listen": listen, "cron_secret": _SECRET, **http}, "jobs": _JOBS}
    return write_config(folder, sections), f"http://{listen}"


def _token(config: Path, role: str = "operator") -> dict[str, str]:
    command = [sys.executable, "-m", "batchd", "token", "create", f"my-{role}", "--role", role, "--config", str(config)]
    made = completed(command, environment=clean_environment(_PLUGIN), folder=config.parent)
    assert made.returncode == ExitCode.OK, made.stderr
    return {"Authorization": f"Bearer {made.stdout.strip()}"}


def _children(daemon: Daemon) -> set[int]:
    children = Path(f"/proc/{daemon.pid}/task").glob("*/children")
    return {int(pid) for file in children for pid in file.read_text().split()}


def _apart(daemon: Daemon) -> set[int]:
    """The daemon's children that were executed as servers."""
    return {pid for pid in _children(daemon) if b"batchd.successor" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def _server_of(daemon: Daemon) -> int:
    """The pid of the daemon's HTTP server."""
    (pid,) = _children(daemon)
    return pid


def _is_gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def _answers(url: str, status: int = 200, path: str = "/readyz") -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}{path}", timeout=5).status_code == status
    return False


@contextlib.contextmanager
def _ready(config: Path, url: str, **options: Any) -> Iterator[Daemon]:
    with Daemon(config, **options) as daemon:
        daemon.ready(60)
        wait_until(lambda: _answers(url), seconds=60, what=f"{url} is ready")
        yield daemon


def test_a_daemon_is_looked_at_and_told_over_http(tmp_path: Path, urls: Urls) -> None:
    """Its runs, its counters, a run that is waited for; then the server is killed, and nothing else is."""
    config, url = _config(tmp_path, urls.store)
    with _ready(config, url) as daemon:
        mine = _token(config)
        answer = _post(f"{url}/api/v1/jobs/asked/trigger", headers=mine, json={}).json()
        shown = f"{url}{answer['url']}"
        wait_until(lambda: _get(shown, headers=mine).json()["run"]["state"] == "succeeded", seconds=20)
        cron = _get(f"{url}/api/cron/asked", headers={"Authorization": f"Bearer {_SECRET}"})
        assert (cron.status_code, cron.json()["state"]) == (200, "succeeded")
        both = 'batchd_runs_total{job="asked",outcome="succeeded",trigger="manual"} 2'
        ticks = re.compile(r'batchd_runs_total{job="tick",outcome="succeeded",trigger="schedule"} [1-9]')

        def counted() -> str | None:
            text = _get(f"{url}/metrics", headers=mine).text
            return text if both in text and ticks.search(text) else None

        scrape = wait_until(counted, seconds=20, what=f"{both}, and a tick")  # the server asks the daemon once a second
        assert scrape
        started = float(re.search(r"^process_start_time_seconds (\S+)", scrape, re.MULTILINE)[1])  # type: ignore[index]
        assert 0 < time.time() - started < 600

        first = _server_of(daemon)
        os.kill(first, signal.SIGKILL)
        daemon.wait_for_event("http.died", status=-9)
        wait_until(lambda: _answers(url), seconds=30, what="a new server")
        second = _server_of(daemon)
        assert second != first
        assert own_megabytes(second) < _SUCCESSOR_MEGABYTES
        assert _get(f"{url}/api/v1/whoami", headers=mine).json()["name"] == "my-operator"
        assert _SECRET not in Path(f"/proc/{second}/cmdline").read_text() + Path(f"/proc/{second}/environ").read_text()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
            assert daemon.stop(seconds=15) == ExitCode.OK
        wait_until(lambda: _is_gone(second), seconds=10, what="the server's end")
        assert _SECRET not in daemon.output


def test_a_server_does_not_wait_for_the_store(tmp_path: Path, own_server: PostgresServer) -> None:
    """While the daemon waits for its store it answers that it is not ready, as a program of its own."""
    with fresh_database(own_server) as store:
        config, url = _config(tmp_path, store)
        own_server.stop()
        with Daemon(config) as daemon:
            daemon.wait_for_event("store.waiting")
            wait_until(lambda: _answers(url, 200, "/healthz"), seconds=30, what="an answer")
            assert _answers(url, 503)
            (server,) = _apart(daemon)
            own_server.start()
            daemon.ready(60)
            wait_until(lambda: _answers(url), seconds=30, what="green")
            assert _server_of(daemon) == server
            assert daemon.stop() == ExitCode.OK
            assert _is_gone(server)


def test_a_start_that_waits_for_its_store_can_be_stopped(tmp_path: Path) -> None:
    """Its server ends with it, and takes the socket away."""
    path = tmp_path / "http.sock"
    config, _ = _config(tmp_path, f"postgresql://nobody@127.0.0.1:{free_port()}/none", listen=f"unix:{path}")
    with Daemon(config) as daemon:
        daemon.wait_for_event("store.waiting")
        server = wait_until(lambda: _apart(daemon), seconds=30, what="the server").pop()
        assert daemon.stop() == ExitCode.OK
        assert _is_gone(server)
        assert not path.exists()


def test_a_start_whose_store_hangs_is_stopped_at_once(tmp_path: Path) -> None:
    """A thread of the server that waits for the store does not hold the server's end up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config, url = _config(tmp_path, f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none")
        with Daemon(config) as daemon:
            wait_until(lambda: _answers(url, 200, "/healthz"), seconds=30, what="an answer")
            began = time.monotonic()
            assert daemon.stop() == ExitCode.OK
            assert time.monotonic() - began < _LAST_RESORT_SECONDS


def test_a_daemon_that_is_stopped_is_not_ready(tmp_path: Path) -> None:
    """Frozen as a whole, it cannot say so itself: its server does, and forgives it when it goes on."""
    config, url = _config(tmp_path, f"sqlite:///{tmp_path}/batchd.db")
    with _ready(config, url) as daemon:
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: _answers(url, 503), seconds=30, what="red")
            assert _answers(url, 200, "/healthz")
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        wait_until(lambda: _answers(url), seconds=30, what="green again")


def test_a_server_ends_with_its_daemon(tmp_path: Path) -> None:
    """Also when that is killed; the next daemon gets the socket and the store."""
    path = tmp_path / "http.sock"
    config, _ = _config(tmp_path, f"sqlite:///{tmp_path}/batchd.db", listen=f"unix:{path}")
    client = httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://localhost")
    with Daemon(config) as daemon:
        daemon.ready()
        wait_until(lambda: client.get("/readyz").status_code == 200, seconds=20)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        server = _server_of(daemon)
        os.kill(daemon.pid, signal.SIGKILL)
        wait_until(lambda: _is_gone(server), seconds=20)
    with Daemon(config) as daemon:
        daemon.ready()
        assert daemon.stop() == ExitCode.OK
        assert not path.exists()
    client.close()


def test_a_socket_of_systemd_is_taken(tmp_path: Path) -> None:
    """LISTEN_FDS: the daemon serves on what was opened before it was started."""
    config, _ = _config(tmp_path, f"sqlite:///{tmp_path}/batchd.db", listen="systemd")
    with socket.create_server(("127.0.0.1", 0)) as opened:
        url = f"http://127.0.0.1:{opened.getsockname()[1]}"
        started = f"LISTEN_PID=$$ LISTEN_FDS=1 exec {sys.executable} -m batchd run -c {config} 3<&{opened.fileno()}"
        daemon = subprocess.Popen(
            ["bash", "-c", started],
            pass_fds=[opened.fileno()],
            cwd=PROJECT,
            env={**os.environ, **_PLUGIN},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: _answers(url), seconds=30, what="the daemon on systemd's socket")
        finally:
            daemon.terminate()
            assert daemon.wait(20) == ExitCode.OK


def test_nobody_else_is_let_in_before_there_is_a_token(tmp_path: Path) -> None:
    """An address that other machines reach is refused, with what to do, until somebody could be told apart."""
    config, _ = _config(tmp_path, f"sqlite:///{tmp_path}/batchd.db", listen=f"0.0.0.0:{free_port()}")
    refused = batchd(config, "run")
    assert refused.returncode == ExitCode.CONFIG_INVALID
    assert "batchd token create" in refused.stderr
    assert "Traceback" not in refused.stderr
    _token(config, "viewer")
    with Daemon(config) as daemon:
        daemon.ready()


def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    """One message, and the code for what cannot be made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        config, _ = _config(tmp_path, f"sqlite:///{tmp_path}/batchd.db", listen=listen)
        refused = batchd(config, "run")
    assert (refused.returncode, listen in refused.stderr) == (ExitCode.CANNOT_CREATE, True)


def test_an_idle_daemon_and_its_server_are_small(tmp_path: Path) -> None:
    """What they have together of their own after a first start; pages that both have count once."""
    config, url = _config(tmp_path, f"sqlite:///{tmp_path}/batchd.db")
    with _ready(config, url, fresh=True) as daemon:
        pids = (daemon.pid, _server_of(daemon))
        assert sum(used := [own_megabytes(pid) for pid in pids]) < 78, used
        mine = _token(config)
        for path in ("/metrics", "/api/v1/jobs", "/api/v1/runs"):
            assert _get(f"{url}{path}", headers=mine).status_code == 200
        assert sum(used := [own_megabytes(pid) for pid in pids]) < 95, used


def test_without_http_nothing_of_it_is_imported(tmp_path: Path) -> None:
    """Neither the libraries nor batchd's own package of it."""
    config = write_config(tmp_path, {"jobs": _JOBS})
    code = f"""
import json, os, sys
from pathlib import Path
import batchd.cli.run
from batchd.config.load import load_config
load_config(Path({str(config)!r}), os.environ)
print(json.dumps(sorted(sys.modules)))
"""
    environment = {**os.environ, **_PLUGIN}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    imported = json.loads(done.stdout)
    unwanted = ("starlette", "uvicorn", "prometheus_client", "anyio.", "batchd.web", "batchd.surface")
    assert [name for name in imported if name.startswith(unwanted)] == []
