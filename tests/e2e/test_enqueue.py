"""An application and a daemon that meet in the store alone: what is enqueued is executed, and its result read."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from batchd import Client, EnqueueRefused
from tests.e2e.conftest import Urls
from tests.support.daemon import Daemon, write_config
from tests.support.databases import open_database
from tests.support.processes import PROJECT

_HEAVY = ("pydantic", "apscheduler", "alembic", "structlog", "click", "jinja2", "rich", "httpx2", "cronsim", "dotenv")


def test_what_is_enqueued_is_executed(tmp_path: Path, urls: Urls) -> None:
    """The daemon says what it knows, the client refuses anything else, and waits for the end of what it enqueued."""
    jobs = {"look": {"kind": "health_check", "databases": ["app"]}}
    sections = {
        "store": {"url": urls.store},
        "databases": {"app": {"url": urls.app}},
        "jobs": jobs,
        "queues": {"q": {}},
    }
    with closing(open_database(urls.app)) as app, app.writing() as connection:
        connection.execute(text("CREATE TABLE orders (number integer)"))
    with Daemon(write_config(tmp_path, sections)) as daemon, Client(urls.store) as client:
        daemon.ready()
        run = client.wait(client.enqueue("look", queue="q", tags=["by-hand"]), timeout=60)
        assert (run.state, run.queue, run.tags, run.created_by) == ("succeeded", "q", ["by-hand"], "client")
        assert run.result
        assert client.wait(client.enqueue("health_check", {"databases": ["app"]}), timeout=60).state == "succeeded"
        for name, params, queue in (("lok", {}, None), ("look", {"databse": "x"}, None), ("look", {}, "r")):
            with pytest.raises(EnqueueRefused):
                client.enqueue(name, params, queue=queue)
        wrong = client.wait(client.enqueue("look", {"databases": 5}), timeout=60)
        assert (wrong.state, wrong.reason) == ("quarantined", "not_understood")
        assert daemon.stop() == 0


def test_a_client_is_a_small_import() -> None:
    """`import batchd` imports next to nothing; the client nothing of the daemon, nor what only the daemon needs."""
    program = f"""
import sys
import batchd
assert len([name for name in sys.modules if name.startswith(("batchd", "sqlalchemy"))]) == 1
batchd.Client, batchd.AsyncClient, batchd.RunRequest
heavy = [name for name in {_HEAVY!r} if name in sys.modules]
rooms = {{"engine", "scheduler", "jobs", "config", "cli", "daemon", "mail", "telemetry"}}
daemon = [name for name in sys.modules if name.startswith("batchd.") and name.split(".")[1] in rooms]
assert not heavy + daemon, heavy + daemon
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
