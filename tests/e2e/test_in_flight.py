"""Fifty runs at work at once, of a team's own code, while daemons are killed and the database is restarted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import batchd
from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store.queries import RunFilter, list_runs
from tests.e2e.conftest import Urls
from tests.e2e.ledger import read_tries, try_problems
from tests.support.daemon import Daemon, write_config
from tests.support.databases import open_database
from tests.support.postgres import PostgresServer, fresh_database
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

_RUNS = 120
_AT_ONCE = 50

_CODE = """
import batchd

@batchd.job(queue="wide", max_attempts=3)
def hold(context: batchd.JobContext, number: int) -> int:
    for _ in range(10):
        context.wait(batchd_pause)
    return number

from datetime import timedelta
batchd_pause = timedelta(seconds=0.08)
"""


def _config(folder: Path, store_url: str) -> Path:
    (folder / "holding.py").write_text(_CODE)
    return write_config(
        folder,
        {
            "daemon": {"shutdown_grace": "5s", "state": str(folder), "workers": _AT_ONCE, "import": ["holding"]},
            "store": {"url": store_url},
            "queues": {"wide": {"concurrency": _AT_ONCE}},
        },
    )


def _running(store: Database) -> int:
    return len(list_runs(store, RunFilter(states=frozenset({RunState.RUNNING}), limit=2 * _AT_ONCE)))


def _struck(config: Path, store_url: str, blow: Callable[[Daemon], None]) -> None:
    """Run a daemon until fifty runs are at work, and have it struck."""
    with Daemon(config) as daemon:
        daemon.ready(90)
        with closing(open_database(store_url)) as store:
            wait_until(lambda: _running(store) >= _AT_ONCE, seconds=90, what="fifty runs at work")
        blow(daemon)


def _enqueued(store_url: str) -> None:
    with closing(batchd.Client(store_url)) as client:
        asked = [batchd.RunRequest("hold", {"arguments": {"number": number}}) for number in range(_RUNS)]
        assert len(client.enqueue_many(asked)) == _RUNS


def _kill(daemon: Daemon) -> None:
    daemon.kill()


def _check(config: Path, store_url: str) -> None:
    """Let a last daemon end the work; each run has succeeded once, with its own result."""
    with Daemon(config) as daemon:
        daemon.ready(90)
        with closing(open_database(store_url)) as store:
            wait_until(
                lambda: len(list_runs(store, RunFilter(states=frozenset({RunState.SUCCEEDED}), limit=_RUNS))) == _RUNS,
                seconds=150,
                what="all runs succeeded",
            )
            ended = list_runs(store, RunFilter(limit=2 * _RUNS))
            assert sorted(run.result["value"] for run in ended if run.result) == list(range(_RUNS))
            assert not try_problems(read_tries(store), frozenset(run.id for run in ended))
        assert daemon.stop() == 0


def test_killed_daemons_lose_and_double_no_run(tmp_path: Path, urls: Urls) -> None:
    """Two daemons in a row die with fifty runs at work each."""
    config = _config(tmp_path, urls.store)
    with Daemon(config) as daemon:  # the client asks which jobs daemons know
        daemon.ready(90)
    _enqueued(urls.store)
    _struck(config, urls.store, _kill)
    _struck(config, urls.store, _kill)
    _check(config, urls.store)


def test_a_restarted_database_loses_and_doubles_no_run(tmp_path: Path, own_server: PostgresServer) -> None:
    """The server goes down under fifty runs at work, as in a crash, and comes back; the daemon goes on."""

    def restart(daemon: Daemon) -> None:
        own_server.stop("immediate")
        daemon.wait_for_event("store.unavailable", seconds=60)
        own_server.start()
        daemon.wait_for_event("run.finished", seconds=90)

    with fresh_database(own_server) as store_url:
        config = _config(tmp_path, store_url)
        with Daemon(config) as daemon:
            daemon.ready(90)
        _enqueued(store_url)
        _struck(config, store_url, restart)
        _check(config, store_url)
