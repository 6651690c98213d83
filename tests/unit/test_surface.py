"""What a run that is asked for over HTTP may be given."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchd.config.load import load_config
from batchd.errors import ParamsInvalid
from batchd.surface import ConfigJobs

_CONFIG = """
[databases.app]
url = "sqlite:///app.db"
[jobs.clean]
kind = "cleanup"
database = "app"
table = "logs"
column = "at"
older_than = "30d"
[jobs.shell]
kind = "command"
command = ["true"]
[jobs.mine]
kind = "python"
target = "json:dumps"
"""


@pytest.fixture
def jobs(tmp_path: Path) -> ConfigJobs:
    """Three jobs."""
    file = tmp_path / "config.toml"
    file.write_text(_CONFIG)
    return ConfigJobs(load_config(file, {}))


@pytest.mark.parametrize(
    ("job", "params"),
    [
        ("clean", {"table": "users"}),
        ("clean", {"older_than": "1s"}),
        ("clean", {"where": "true"}),
        ("shell", {"command": ["id"]}),
        ("shell", {"shell": True, "command": "id"}),
        ("mine", {"target": "os:system"}),
    ],
)
def test_what_a_job_does_is_the_configs_business(jobs: ConfigJobs, job: str, params: dict[str, object]) -> None:
    """An operator's token runs the team's jobs, and no program, table or function of its holder's choice."""
    with pytest.raises(ParamsInvalid):
        jobs.check_overrides(job, params)  # type: ignore[arg-type]


def test_what_a_kind_calls_adjustable_may_be_set(jobs: ConfigJobs) -> None:
    """A dry run, and a function's arguments."""
    jobs.check_overrides("clean", {"dry_run": True})
    jobs.check_overrides("mine", {"arguments": {"obj": 1}})
    with pytest.raises(ParamsInvalid, match="table of job 'clean' cannot be set over HTTP; a run may set: dry_run"):
        jobs.check_overrides("clean", {"table": "users"})
