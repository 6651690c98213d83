"""What the config says of queues, keys and retention."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from batchd.config.load import load_config
from batchd.config.problems import ConfigInvalid
from batchd.domain.queue import QueueOrder, QueueRules, Rate
from batchd.service.room_settings import engine_settings

_JOB = """
[databases.app]
url = "sqlite:///app.db"

[jobs.clean]
kind = "cleanup"
database = "app"
table = "logs"
column = "at"
older_than = "1d"
"""


def written(folder: Path, text: str) -> Path:
    """Write a config."""
    file = folder / "config.toml"
    file.write_text(text)
    return file


def test_a_queues_rules_reach_the_engine(tmp_path: Path) -> None:
    """As rates, numbers and an order."""
    text = """
[daemon]
queue_order = "weighted"
keep = { succeeded = "7d" }

[queues.mail]
concurrency = 5
max_running = 8
rate = "100/1m"
max_running_per_key = 2
rate_per_key = "5/s"
weight = 3
priority = 4
"""
    config = load_config(written(tmp_path, text + _JOB), {})
    settings = engine_settings(config)
    assert settings.queue_order is QueueOrder.WEIGHTED
    assert settings.queues == {"mail": 5}
    assert settings.rules == {
        "mail": QueueRules(4, 3, 8, Rate(100, timedelta(minutes=1)), 2, Rate(5, timedelta(seconds=1)))
    }
    assert config.settings.daemon.keep == {"succeeded": timedelta(days=7)}


def test_a_jobs_mutex_key_and_retention_are_in_its_definition(tmp_path: Path) -> None:
    """`remove_on_success` is a retention of nothing."""
    more = 'mutex = "m"\nlimit_key = "{table}"\nkeep_for = { failed = "90d" }\nremove_on_success = true\n'
    plain = load_config(written(tmp_path, _JOB), {}).jobs[0]
    assert (plain.mutex, plain.limit_key, plain.keep) == (None, None, None)
    job = load_config(written(tmp_path, _JOB + more), {}).jobs[0]
    assert (job.mutex, job.limit_key) == ("m", "{table}")
    assert job.keep == {"failed": 90 * 86_400.0, "succeeded": 0.0}
    assert job.definition_hash != plain.definition_hash


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[queues.q]\nmax_runing = 5\n", "did you mean 'max_running'?"),
        ('[queues.q]\nrate = "5"\n', "is no rate; write"),
        ("[queues.q]\nrate = 5\n", "rate"),
        ("[queues.q]\nmax_running = 0\n", "max_running"),
        ('[daemon]\nqueue_order = "fair"\n', "queue_order"),
        ('[queues."a/b"]\nweight = 2\n', "must not contain a /"),
        ('[daemon]\nkeep = { queued = "1d" }\n', "queued"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    """With the place and what to write."""
    with pytest.raises(ConfigInvalid) as caught:
        load_config(written(tmp_path, text + _JOB), {})
    assert said in str(caught.value)


def test_a_key_names_parameters_of_the_kind(tmp_path: Path) -> None:
    """A typing mistake would make one key of all runs."""
    with pytest.raises(ConfigInvalid, match="limit_key"):
        load_config(written(tmp_path, _JOB + 'limit_key = "{tabel}"\n'), {})
    python = '[jobs.b]\nkind = "python"\ntarget = "os:getcwd"\nlimit_key = "{customer}"\n'
    with pytest.raises(ConfigInvalid, match=r"an argument of its function is \{arguments.customer\}"):
        load_config(written(tmp_path, python), {})
    load_config(written(tmp_path, python.replace("{customer}", "{arguments.customer}")), {})
