"""`batchd enqueue`: one run from options, very many from lines of JSON, all of them or none."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchd.cli.main import main
from batchd.db.engine import Database
from batchd.store.known_names import KindParams, register
from batchd.store.migrate import migrate
from tests.support.cleaning import execute, fetch
from tests.support.databases import open_database
from tests.support.store_rows import add_schedule, run_row

CONFIG = """
[store]
url = "{store}"

[databases.app]
url = "sqlite:///app.db"

[queues.critical]

[jobs.nightly]
kind = "cleanup"
database = "app"
table = "t"
column = "created_at"
older_than = "30d"
"""

ANY = KindParams(None, frozenset(), frozenset())


@dataclass(frozen=True)
class Shell:
    """Runs `batchd` in this process."""

    store: Database
    capture: Callable[[], Any]
    feed: Callable[[str], None]

    def __call__(self, *words: str, given: str = "") -> tuple[int, str, str]:
        """Return the exit code and what was written to stdout and stderr."""
        self.feed(given)
        code = main(words)
        out, err = self.capture()
        return code, out, err

    def json(self, *words: str, given: str = "") -> Any:
        """Run a command that must succeed with `--json` and return what it printed."""
        code, out, err = self(*words, "--json", given=given)
        assert code == 0, err
        return json.loads(out)

    @property
    def count(self) -> int:
        """How many runs there are."""
        (found,) = fetch(self.store, "SELECT count(*) FROM batchd_runs")
        return int(found)


@pytest.fixture
def shell(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    """A folder with a config, and a store as its daemon leaves it."""
    (tmp_path / "config.toml").write_text(CONFIG.format(store=database_url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHD_CONFIG", raising=False)

    def feed(given: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))

    with closing(open_database(database_url)) as store:
        migrate(store)
        add_schedule(store, "nightly", params={"database": "app", "table": "t", "column": "c", "older_than": "30d"})
        register(store, {"cleanup": ANY, "email": ANY, "health_check": ANY}, ["critical"])
        yield Shell(store, capsys.readouterr, feed)


def test_one_run_with_every_option(shell: Shell) -> None:
    """The row has what the options say, and the answer its id."""
    answer = shell.json(
        *("enqueue", "nightly", "-p", "dry_run=true", "-p", "table=other", "--queue", "critical", "--priority", "4"),
        *("--delay", "5m", "--max-attempts", "2", "--backoff", "linear", "--retry-delay", "2s", "--jitter", "0"),
        *("--timeout", "90s", "--unique-key", "k", "--unique-period", "1h", "--on-conflict", "replace"),
        *("--tag", "a", "-t", "b", "--meta", "by=ada", "--meta", "ticket=5"),
    )
    run = run_row(shell.store, answer["run_id"])
    assert (answer["outcome"], answer["daemon_alive"]) == ("queued", False)
    assert run["params"] == {"database": "app", "table": "other", "column": "c", "older_than": "30d", "dry_run": True}
    assert (run["schedule_id"], run["queue"], run["priority"], run["max_attempts"]) == ("nightly", "critical", 4, 2)
    assert (run["retry"]["backoff"], run["retry"]["delay_seconds"], run["retry"]["jitter"]) == ("linear", 2.0, 0.0)
    assert (run["timeout_seconds"], run["unique_key"], run["created_by"]) == (90.0, "k", "cli")
    assert (run["tags"], run["metadata"]) == (["a", "b"], {"by": "ada", "ticket": 5})
    assert abs(run["available_at"] - run["created_at"] - timedelta(minutes=5)) < timedelta(seconds=5)
    code, out, err = shell("enqueue", "nightly", "--unique-key", "k")
    assert (code, out) == (0, f"run {run['id']} has this unique key and was kept\n")
    assert "no daemon is running" in err


def test_tags_and_metadata_are_shown_and_filtered(shell: Shell) -> None:
    """`runs` lists tags where there are some, and only runs with all the tags that are asked for."""
    both = shell.json("enqueue", "nightly", "-t", "import", "-t", "größe", "-m", "by=ada")["run_id"]
    shell.json("enqueue", "nightly", "-t", "import")
    shell.json("enqueue", "nightly")
    assert [run["id"] for run in shell.json("runs", "--tag", "import", "--tag", "größe")["runs"]] == [both]
    assert len(shell.json("runs", "-t", "import")["runs"]) == 2
    assert shell.json("runs", "-t", "imp")["runs"] == []
    _, out, _ = shell("runs", "-t", "größe")
    assert "import, größe" in out
    _, out, _ = shell("show", str(both))
    assert "import, größe" in out
    assert '{"by": "ada"}' in out
    _, out, _ = shell("show", str(both), "--json")
    assert json.loads(out)["run"]["metadata"] == {"by": "ada"}


def test_bad_usage_is_told(shell: Shell) -> None:
    """One clear message, exit code 2, no run."""
    wrong = {
        "nigthly": "did you mean 'nightly'?",
        "nightly --queue crit": "there is no [queues.crit]; there are: critical, default",
        "nightly -p tabel=x": "tabel",
        "email": "there is no [mail]",
        "cleanup -p table=t": "kind 'cleanup': database: is missing",
        'health_check -p databases=["nope"]': "there is no [databases.nope]",
        "nightly --at 2027-01-01 --delay 5m": "either at or delay",
        "nightly --unique-period 5m": "need a unique_key",
        "nightly --priority 5000": "--priority",
        "nightly --meta x": "KEY=VALUE",
    }
    for words, said in wrong.items():
        code, out, err = shell("enqueue", *words.split())
        assert (code, out) == (2, ""), words
        assert said in err
        assert "Traceback" not in err
    assert shell.count == 0


def test_a_job_that_the_store_does_not_know_yet_is_no_kind(shell: Shell) -> None:
    """It needs the daemon once, and until then nothing is queued that could not run."""
    execute(shell.store, "DELETE FROM batchd_schedules", "DELETE FROM batchd_catalog")
    code, _, err = shell("enqueue", "nightly")
    assert code == 2
    assert "batchd run" in err
    assert shell.count == 0


def test_functions_of_ones_own_are_queued_by_name(shell: Shell, tmp_path: Path) -> None:
    """Those of a module that the config imports; and any other that a daemon has told the store of."""
    (tmp_path / "shopwork.py").write_text(
        "import batchd\n@batchd.job(queue='critical')\ndef greet(name: str) -> None: ...\n"
    )
    with (tmp_path / "config.toml").open("a") as config:
        config.write('[daemon]\nimport = ["shopwork"]\n')
    for job in ("greet", "elsewhere"):
        add_schedule(shell.store, job, kind="python", params={"target": f"shopwork:{job}"})
    register(shell.store, {"python": ANY}, ["critical"])
    for job in ("greet", "elsewhere"):
        run = run_row(shell.store, shell.json("enqueue", job, "-p", 'arguments={"name": "Ann"}')["run_id"])
        assert run["params"]["arguments"] == {"name": "Ann"}
    assert "did you mean 'elsewhere'?" in shell("enqueue", "elswhere")[2]


def test_lines_are_queued_all_at_once(shell: Shell) -> None:
    """Each with its own options over those of the command; empty lines do not count."""
    lines = [
        {"name": "nightly", "params": {"table": "x"}, "unique_key": "a", "tags": ["own"]},
        {"name": "nightly", "delay": "1h", "metadata": {"n": 2}},
        {"name": "nightly", "unique_key": "a"},
    ]
    given = "\n\n".join(json.dumps(line) for line in lines) + "\n"
    assert shell.json("enqueue", "-", "--tag", "import", "-m", "by=ada", given=given) == {"queued": 2, "kept": 1}
    first, second = fetch(shell.store, "SELECT id FROM batchd_runs ORDER BY id")
    runs = [run_row(shell.store, run_id) for run_id in (first, second)]
    by_tag = {run["tags"][0]: run for run in runs}
    assert by_tag["own"]["params"]["table"] == "x"
    assert by_tag["own"]["metadata"] == {"by": "ada"}
    assert by_tag["import"]["metadata"] == {"by": "ada", "n": 2}
    assert shell("enqueue", "-", given="") == (0, "there was no line\n", "")


def test_more_lines_than_one_insert_takes(shell: Shell) -> None:
    """Six thousand of them, in one transaction."""
    given = '{"name": "nightly"}\n' * 6_000
    assert shell.json("enqueue", "-", given=given) == {"queued": 6_000}
    assert shell.count == 6_000


_LINES = """{"name": "nightly"}

{nonsense
["nightly"]
{"params": {}}
{"name": "nightly", "quue": "critical"}
{"name": "nope"}
{"name": "nightly", "queue": "crit"}
{"name": "nightly", "params": {"older_than": "soon"}}
{"name": "nightly", "priority": "high"}
{"name": "nightly", "unique_key": 5}
{"name": "nightly"}"""


def test_a_bad_line_stops_all_and_is_named(shell: Shell) -> None:
    """With its number, as a person counts; whatever is wrong with it."""
    code, out, err = shell("enqueue", "-", given=_LINES)
    assert (code, out, shell.count) == (2, "", 0)
    for line, said in {
        3: "not JSON",
        4: "not an object",
        5: "has no name",
        6: "there is no option 'quue'; did you mean 'queue'?",
        7: "there is no job and no kind 'nope'",
        8: "there is no [queues.crit]",
        9: "older_than",
        10: "priority must be a whole number",
        11: "unique_key must be a text",
    }.items():
        (told,) = [text for text in err.splitlines() if text.strip().startswith(f"line {line}:")]
        assert said in told
    assert "line 1:" not in err
    assert "Traceback" not in err


def test_a_flood_of_bad_lines_is_cut_short(shell: Shell) -> None:
    """Twenty complaints are enough."""
    _, _, err = shell("enqueue", "-", given="x\n" * 100)
    assert err.count("  line ") == 20
    assert "there may be more" in err
