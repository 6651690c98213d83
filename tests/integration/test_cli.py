"""The commands as real processes, with and without a daemon."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.store.migrate import migrate
from batchd.store.schema import SCHEMA_VERSION, workers
from tests.support.canary import assert_no_canary
from tests.support.processes import completed
from tests.support.store_rows import LONG_AGO, add_run, add_schedule, add_worker, run_row

CONFIG = """
[store]
url = "{store}"

[databases.app]
url = "sqlite:///{app}"

[jobs.nightly]
kind = "cleanup"
schedule = "0 3 * * *"
database = "app"
table = "t"
column = "created_at"
older_than = "30d"

[jobs.paused-one]
kind = "cleanup"
schedule = "0 4 * * *"
database = "app"
table = "t"
column = "created_at"
older_than = "30d"
"""

HEALTHY_WITHIN = 30


@dataclass(frozen=True)
class Shell:
    """Runs `batchd` in a folder of its own, where config.toml is."""

    folder: Path
    store: Database

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "batchd", *words]
        done = completed(command, environment=self.environment | environment, folder=self.folder)
        assert_no_canary(done.stdout + done.stderr, f"batchd {' '.join(words)}")
        return done

    @property
    def environment(self) -> dict[str, str]:
        """The tests' environment, in which `batchd` is importable from everywhere."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BATCHD_")}
        return inherited | {"PYTHONPATH": str(Path(__file__).parents[2])}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `batchd` and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "batchd", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def json(self, *words: str) -> Any:
        """Run a command that must succeed with `--json` and return what it printed."""
        done = self(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def bare_shell(tmp_path: Path) -> Iterator[Shell]:
    """A folder with a config, and no file yet where the SQLite store is to be."""
    with in_folder(tmp_path, f"sqlite:///{tmp_path / 'none.db'}") as made_shell:
        yield made_shell


@pytest.fixture
def shell(tmp_path: Path, sqlite_url: str) -> Iterator[Shell]:
    """A folder with a config, and the SQLite store that it names.

    What the commands ask of a store is proven on every dialect by test_queries.py and test_control.py.
    """
    with in_folder(tmp_path, sqlite_url) as made_shell:
        yield made_shell


@pytest.fixture
def any_shell(tmp_path: Path, database_url: str) -> Iterator[Shell]:
    """The same on every dialect."""
    with in_folder(tmp_path, database_url) as made_shell:
        yield made_shell


@contextlib.contextmanager
def in_folder(tmp_path: Path, store_url: str) -> Iterator[Shell]:
    """Write the config and an application database into the folder."""
    with contextlib.closing(sqlite_app(tmp_path)) as app, app.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, created_at TEXT)")
    (tmp_path / "config.toml").write_text(CONFIG.format(store=store_url, app=tmp_path / "app.db"))
    with contextlib.closing(opened("store", store_url)) as store:
        yield Shell(tmp_path, store)


def sqlite_app(folder: Path) -> Database:
    """Return the application database of the config."""
    return opened("app", f"sqlite:///{folder / 'app.db'}")


def opened(name: str, url: str) -> Database:
    """Return a database with short limits."""
    five = timedelta(seconds=5)
    return Database(DatabaseSettings(name, url, 5, five, None, five))


@pytest.fixture
def made(shell: Shell) -> Shell:
    """The same with batchd's tables and the config's jobs, as a daemon leaves them."""
    migrate(shell.store)
    add_schedule(shell.store, "nightly", params={})
    add_schedule(shell.store, "paused-one", params={}, paused_at=LONG_AGO)
    return shell


def until(found: Callable[[], object], seconds: float = 20) -> None:
    """Wait until the function returns something true."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_store_that_was_never_made_is_not_made_by_looking(bare_shell: Shell) -> None:
    """Every command but run, migrate and demo says what to do, exits with 76 and leaves no file."""
    for words in (["jobs"], ["runs"], ["show", "1"], ["status"], ["trigger", "nightly"], ["pause", "nightly"]):
        done = bare_shell(*words)
        assert done.returncode == 76, done.stderr
        assert "batchd migrate" in done.stderr
    assert not Path(str(bare_shell.store.engine.url.database)).exists()


def test_migrate_makes_the_tables_once(tmp_path: Path, empty_url: str) -> None:
    """The second time says that nothing was to be done."""
    with in_folder(tmp_path, empty_url) as shell:
        assert shell.json("migrate") == {"changed": True}
        assert shell.json("migrate") == {"changed": False}
        assert shell.json("jobs") == {"jobs": []}
        assert "CREATE TABLE" in shell("migrate", "--sql").stdout


def test_a_missing_config_says_where_it_was_looked_for(shell: Shell) -> None:
    """Config errors exit with 78, as a message or as JSON."""
    (shell.folder / "config.toml").rename(shell.folder / "other.toml")
    done = shell("jobs")
    assert done.returncode == 78
    assert str(shell.folder / "config.toml") in done.stderr
    assert "/etc/batchd/config.toml" in done.stderr
    assert json.loads(shell("jobs", "--json").stderr)["error"]["code"] == "config_invalid"
    assert shell("check", BATCHD_CONFIG="other.toml").returncode == 0
    assert shell("check", "-c", "other.toml").returncode == 0
    assert shell("-c", "other.toml", "check").returncode == 0


def test_jobs_and_runs_for_people_and_programs(made: Shell) -> None:
    """The same facts as a table and as JSON."""
    run_id = add_run(made.store, "failed", reason="error", error="boom\x1b[31m\u202e", started_at=LONG_AGO)
    table = made("jobs")
    assert table.returncode == 0
    assert "nightly" in table.stdout
    assert "paused" in table.stdout
    assert "no daemon is running" in table.stderr
    nightly, paused = made.json("jobs")["jobs"]
    assert nightly["last_run"]["id"] == run_id
    assert paused["last_run"] is None
    (run,) = made.json("runs", "--job", "nightly", "--state", "failed", "--since", "1d")["runs"]
    assert (run["job"], run["state"], run["reason"], run["error"]) == (
        "nightly",
        "failed",
        "error",
        "boom\x1b[31m\u202e",
    )
    shown = made("show", str(run_id)).stdout
    assert "boom" in shown
    assert not set(shown) & {"\x1b", "\u202e"}
    assert made.json("show", str(run_id))["run"]["id"] == run_id


def test_a_name_that_there_is_not_is_answered_with_the_nearest(made: Shell) -> None:
    """As bad usage."""
    for words in (["trigger", "nigthly"], ["pause", "nigthly"], ["runs", "--job", "nigthly"], ["next", "nigthly"]):
        done = made(*words)
        assert done.returncode == 2
        assert "did you mean 'nightly'?" in done.stderr
    assert made("show", "404").returncode == 2


def test_a_trigger_without_a_daemon_waits_in_the_store(made: Shell) -> None:
    """And says so; with --timeout the wait ends with 11 and the run stays."""
    done = made("trigger", "nightly", "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["daemon_alive"] is False
    assert "no daemon is running" in done.stderr
    assert run_row(made.store, answer["run_id"])["state"] == "queued"
    assert made("trigger", "nightly", "--wait", "--timeout", "300ms").returncode == 11


def test_a_job_that_the_store_does_not_know_yet_needs_the_daemon_once(shell: Shell) -> None:
    """The hint says so."""
    shell("migrate")
    done = shell("trigger", "nightly")
    assert done.returncode == 2
    assert "batchd run" in done.stderr


def test_ctrl_c_ends_a_wait_and_not_the_run(made: Shell) -> None:
    """With 130 and without a traceback."""
    waiting = made.start("trigger", "nightly", "--wait")
    until(lambda: made.json("runs")["runs"])
    time.sleep(0.3)
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "Traceback" not in said
    assert made.json("runs")["runs"][0]["state"] == "queued"


def test_cancel_retry_pause_resume(made: Shell) -> None:
    """What was done is said, and what cannot be done is refused with 2."""
    run_id = str(add_run(made.store))
    assert made.json("cancel", run_id) == {"run_id": int(run_id), "outcome": "cancelled"}
    assert made("cancel", run_id).returncode == 2
    assert made("retry", run_id).returncode == 0
    assert made("retry", run_id).returncode == 2
    assert made.json("pause", "nightly") == {"job": "nightly", "paused": True, "changed": True}
    assert made.json("resume", "paused-one") == {"job": "paused-one", "paused": False, "changed": True}


def test_queues_are_paused_listed_and_resumed(made: Shell) -> None:
    """A queue that there is not is refused, and so is neither a job nor a queue."""
    add_run(made.store, queue="default")
    assert made.json("pause", "--queue", "default") == {"queue": "default", "paused": True, "changed": True}
    (listed,) = made.json("queues")["queues"]
    assert (listed["queue"], listed["ready"]) == ("default", 1)
    assert listed["paused_at"] is not None
    assert "default" in made("queues").stdout
    assert made.json("status")["queues"][0]["paused_at"] is not None
    assert made("pause", "--queue", "defualt").returncode == 2
    assert made("pause").returncode == 2
    assert made("pause", "nightly", "--queue", "default").returncode == 2
    assert made.json("resume", "--queue", "default")["changed"]


def test_dead_letters_are_retried_and_discarded_together(made: Shell) -> None:
    """Without a person to ask, only with --yes; what was done is counted."""
    for _ in range(3):
        add_run(made.store, "failed")
    refused = made("retry", "--state", "failed", "--job", "nightly")
    assert refused.returncode == 2
    assert "3 runs" in refused.stderr
    assert made.json("retry", "--state", "failed", "--job", "nightly", "--yes") == {"changed": 3, "left": 0}
    assert made.json("discard", "--state", "queued", "--since", "1d", "--yes") == {"changed": 3, "left": 0}
    assert made("retry", "42", "--state", "failed").returncode == 2
    assert made("discard").returncode == 2
    one = add_run(made.store, "failed")
    assert made.json("discard", str(one)) == {"changed": 1, "left": 0}


def test_status_without_a_daemon_is_degraded(made: Shell) -> None:
    """It works all the same, and says 13 to whoever asks with --check."""
    assert made("status").returncode == 0
    done = made("status", "--check", "--json")
    assert done.returncode == 13
    assert json.loads(done.stdout)["degraded"] == ["no daemon is alive"]


def test_status_tells_of_a_daemon_that_a_newer_one_has_left_behind(made: Shell) -> None:
    """A deploy that was rolled back leaves an older daemon on tables that the newer one has changed."""
    add_worker(made.store, "now")
    assert made.json("status")["degraded"] == []
    add_worker(made.store, "draining", state="draining")
    with made.store.writing() as connection:
        connection.execute(update(workers).values(schema_version=SCHEMA_VERSION - 1))
    assert made.json("status")["degraded"] == [
        "daemon now is batchd 0, and a newer one has changed the store: restart it with that"
    ]


def test_a_reader_who_leaves_early_is_no_error(made: Shell) -> None:
    """A broken pipe is silent."""
    for _ in range(5):
        add_run(made.store)
    listing = made.start("runs", "--json")
    assert listing.stdout
    assert listing.stderr
    listing.stdout.close()
    assert listing.stderr.read() == ""
    listing.stderr.close()
    assert listing.wait(20) == 0


def test_the_shell_completes_the_configs_jobs(made: Shell) -> None:
    """Names that begin so."""
    done = made(_BATCHD_COMPLETE="bash_complete", COMP_WORDS="batchd trigger ni", COMP_CWORD="2")
    assert done.stdout.strip() == "plain,nightly"


def test_a_trigger_reaches_a_running_daemon(any_shell: Shell) -> None:
    """Within a second from its commit to its start; --wait returns when it has ended, with 0."""
    daemon = any_shell.start("run")
    try:
        until(lambda: any_shell("status", "--check").returncode == 0, HEALTHY_WITHIN)
        done = any_shell("trigger", "nightly", "--wait", "--timeout", "20s", "--json")
        assert done.returncode == 0, done.stderr
        run = json.loads(done.stdout)["run"]
        row = run_row(any_shell.store, run["id"])
        assert row["started_at"] - row["created_at"] < timedelta(seconds=1)
        assert (run["state"], run["created_by"]) == ("succeeded", "cli")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=30)
    assert daemon.returncode == 0
