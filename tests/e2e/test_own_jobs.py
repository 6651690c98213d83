"""The guide of docs/own-jobs.md, as it stands there: queues, retries, a mail on success, the dead letter."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from batchd.domain.job import Backoff, RetryPolicy
from batchd.domain.retry import delay_after
from batchd.domain.run import RunState
from batchd.errors import ExitCode
from batchd.store.queries import RunDetail
from tests.e2e.conftest import Urls
from tests.support.app_table import opened
from tests.support.cleaning import execute, fetch
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.processes import PROJECT, clean_environment
from tests.support.store_reading import runs_of, wait_for_state

_FINAL = tuple(state for state in RunState if state.is_final)

_OUTSIDE = {
    "crm.py": """
import json, pathlib
def fetch(user_id):
    found = pathlib.Path("crm.json")
    users = json.loads(found.read_text())
    if users.get(str(user_id)) == "down":
        raise ConnectionError(f"the CRM does not answer for {user_id}")
    return users.get(str(user_id))
""",
    "mail.py": """
def send(user_id, subject):
    with open("mails.txt", "a") as mails:
        mails.write(f"{user_id}: {subject}\\n")
""",
    "__init__.py": "",
}


def documented() -> str:
    """The module of the guide."""
    found = re.search(r"```python\n(# shop/jobs.py\n.*?)```", (PROJECT / "docs" / "own-jobs.md").read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def shop(urls: Urls, tmp_path: Path) -> Path:
    """The application's folder, with the config of the guide; waits are a tenth of the guide's."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "jobs.py").write_text(documented().replace('"2s"', '"200ms"'))
    for name, code in _OUTSIDE.items():
        (folder / name).write_text(code)
    (tmp_path / "crm.json").write_text(json.dumps({"5": {"name": "Ann"}, "6": "down"}))
    with opened(urls.app) as app:
        execute(app, "CREATE TABLE users (id integer PRIMARY KEY, name text)", "INSERT INTO users VALUES (5, 'an')")
    write_config(
        tmp_path,
        {
            "daemon": {"shutdown_grace": "5s", "state": str(tmp_path), "import": ["shop.jobs"]},
            "store": {"url": urls.store},
            "databases": {"app": {"url": urls.app}},
            "queues": {"critical": {"concurrency": 5}, "low": {"concurrency": 1}},
        },
    )
    return tmp_path


def application(folder: Path, store_url: str, code: str) -> str:
    """Run code of the application in a process of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"from shop.jobs import send_mail, sync_user\n{code}"],
        cwd=folder,
        env=clean_environment({"BATCHD_STORE_URL": store_url, "PYTHONPATH": f"{PROJECT}:{folder}"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ended(store_url: str, run_id: int) -> RunDetail:
    """Wait until the run is final."""
    with opened(store_url) as store:
        return wait_for_state(store, run_id, *_FINAL, seconds=90)


def test_the_guide_does_what_it_says(shop: Path, urls: Urls) -> None:
    """One user is synced and gets one mail; another fails three times and is a dead letter; a third is gone."""
    config = shop / "config.toml"
    assert batchd(config, "check", seconds=90).returncode == ExitCode.OK
    with Daemon(config) as daemon:
        daemon.ready(90)
        said = application(shop, urls.store, "print(sync_user.enqueue_many([{'user_id': n} for n in (5, 6, 7)]))")
        good, bad, gone = map(int, said.strip("()").split(","))

        synced = ended(urls.store, good)
        assert (synced.run.state, synced.run.queue, synced.run.result) == (RunState.SUCCEEDED, "critical", {"user": 5})
        with opened(urls.app) as app:
            assert fetch(app, "SELECT name FROM users") == ["Ann"]
        with opened(urls.store) as store:
            (mail,) = runs_of(store, "send_mail")
        assert ended(urls.store, mail.id).run.state == RunState.SUCCEEDED
        assert (mail.parent_id, mail.child_key, mail.created_by) == (good, "synced", "job")
        assert (shop / "mails.txt").read_text() == "5: Your data is up to date\n"

        dead = ended(urls.store, bad)
        assert (dead.run.state, dead.run.attempt) == (RunState.FAILED, 3)
        # A claim that a busy machine's threads take up too late is released, and no attempt.
        attempts = [attempt for attempt in dead.attempts if attempt.outcome != "released"]
        assert [attempt.outcome for attempt in attempts] == ["failed"] * 3
        assert all("the CRM does not answer for 6" in str(attempt.error_traceback) for attempt in attempts)
        assert [told["retry_in_s"] for told in daemon.events("run.retrying", run_id=bad)] == [0.2, 0.4]
        assert len(daemon.events("run.failed", run_id=bad)) == 1
        with opened(urls.store) as store:
            events = fetch(store, f"SELECT event FROM batchd_outbox WHERE run_id = {bad} ORDER BY id")
            payloads = fetch(store, f"SELECT payload FROM batchd_outbox WHERE run_id = {bad} ORDER BY id DESC")
        assert [event for event in events if event != "run.released"] == [
            "run.retrying",
            "run.retrying",
            "run.finished",
        ]
        last = payloads[0] if isinstance(payloads[0], dict) else json.loads(payloads[0])
        assert (last["state"], last["attempt"]) == ("failed", 3)

        discarded = ended(urls.store, gone).run
        assert (discarded.state, discarded.reason) == (RunState.CANCELLED, "discarded")
        assert discarded.error == "user 7 is gone"

        (shop / "crm.json").write_text(json.dumps({"6": {"name": "Bob"}}))
        assert batchd(config, "retry", str(bad), "--wait", seconds=90).returncode == ExitCode.OK
        assert daemon.stop() == ExitCode.OK


def test_enqueue_in_the_applications_own_transaction(shop: Path, urls: Urls) -> None:
    """The run exists exactly when the application's transaction commits; an unknown job and a store are told."""
    config = shop / "config.toml"
    with Daemon(config) as daemon:
        daemon.ready(90)
        assert daemon.stop() == ExitCode.OK
    code = """
import batchd, os
from batchd.jobs.python import enqueuing
store = enqueuing._outside.store()
for end in ("rollback", "commit"):
    with store.writing() if end == "commit" else store.engine.connect() as connection:
        send_mail.options(connection=connection).enqueue(5, end)
with store.reading() as connection:
    print(connection.exec_driver_sql("SELECT count(*) FROM batchd_runs").scalar())
@batchd.job
def unknown(): ...
try:
    unknown.enqueue()
except batchd.JobError as error:
    print(error)
"""
    assert application(shop, urls.store, code) == "1\nthere is no job 'unknown' to queue runs of"


def test_a_module_that_cannot_be_imported_keeps_the_daemon_from_starting(shop: Path, urls: Urls) -> None:
    """It would cancel what waits of the jobs; the message has the line and no traceback."""
    (shop / "shop" / "mail.py").unlink()
    done = batchd(shop / "config.toml", "run", seconds=60)
    assert done.returncode == ExitCode.CONFIG_INVALID
    assert "importing shop.jobs failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_guides_waits_are_two_four_and_eight_seconds() -> None:
    """What the decorator of the guide says, counted out."""
    assert '"delay": "2s"' in documented()
    policy = RetryPolicy(3, Backoff.EXPONENTIAL, timedelta(seconds=2), timedelta(hours=1), jitter=0)
    assert [delay_after(policy, attempt, seed="x").total_seconds() for attempt in (1, 2, 3)] == [2, 4, 8]
