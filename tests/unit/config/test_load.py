"""A config is right, or everything that is wrong with it is said at once."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from batchd.config.load import Config, ConfigMissing, load_config
from batchd.config.problems import ConfigInvalid
from batchd.config.schema import json_schema
from batchd.domain.job import CatchUp, JsonObject
from batchd.errors import ParamsInvalid
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.params import Secret


class ProbeParams(Params):
    """Params of every sort."""

    database: str = Field(description="Database.")
    limit: int = Field(default=1, description="Limit.")
    note: str = Field(default="", description="Note.")
    token: Secret | None = Field(default=None, description="Secret.")
    headers: dict[str, str] = Field(default_factory=dict, description="More.")


def run(params: ProbeParams, context: JobContext) -> JsonObject:
    """Do nothing."""
    return {}


PROBE = Kind(
    name="probe",
    summary="probes",
    params=ProbeParams,
    run=run,
    example="",
    databases=lambda params: [params.database],
    defaults={"schedule": "every 5m"},
)
BASE = '[databases.app]\nurl = "sqlite:///app.db"\n'


def load(folder: Path, text: str, **environ: str) -> Config:
    """Write the config and load it."""
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, environ, {"probe": PROBE})


def problems(folder: Path, text: str, **environ: str) -> list[str]:
    """Return what is wrong, without the file's folder."""
    with pytest.raises(ConfigInvalid) as raised:
        load(folder, text, **environ)
    return [str(problem).replace(str(folder) + "/", "") for problem in raised.value.problems]


def test_a_job_wins_over_defaults_and_those_over_its_kind(tmp_path: Path) -> None:
    """The nearest word counts."""
    config = load(
        tmp_path,
        BASE + '[defaults]\ntimeout = "5m"\ncatch_up = "all"\n[jobs.a]\nkind = "probe"\ndatabase = "app"\n'
        'catch_up = "skip"\nretry = { max_attempts = 7 }\n',
    )
    (job,) = config.jobs
    assert (job.schedule, job.timeout, job.catch_up.mode) == ("every 5m", timedelta(minutes=5), CatchUp.SKIP)
    assert job.retry.max_attempts == 7


def test_all_errors_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    """Typos come with the nearest valid name."""
    text = (
        '[daemon]\nworkrs = 3\n[databases.app]\nurl = "sqlite:///app.db"\n'
        '[jobs.a]\nkind = "prob"\n[jobs.b]\nkind = "probe"\ndatabase = "ap"\nschedule = "0 0 31 2 *"\n'
        'timezone = "Europe/Berln"\nlimt = 2\n[jobs.c]\nkind = "probe"\ndatabase = "app"\nqueue = "fast"\n'
        'timeout = "x"\n'
    )
    said = problems(tmp_path, text)
    for expected in (
        "config.toml:2: [daemon] workrs: unknown key; did you mean 'workers'?",
        "config.toml:6: [jobs.a] kind: there is no kind 'prob'; there are: probe; did you mean 'probe'?",
        "config.toml:12: [jobs.b] limt: unknown key; did you mean 'limit'?",
    ):
        assert expected in said
    assert any(line.startswith("config.toml:11: [jobs.b] timezone: unknown time zone") for line in said)
    assert any(line.startswith("config.toml:17: [jobs.c] timeout: not a duration: 'x'") for line in said)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ('schedule = "0 0 31 2 *"', "[jobs.a] schedule: '0 0 31 2 *' is not a cron schedule: bad day-of-month field"),
        ('queue = "fast"', "[jobs.a] queue: there is no [queues.fast]"),
        ('note = "${NOPE}"', "[jobs.a] note: the environment variable NOPE is not set"),
        ('token_file = "nope"', "[jobs.a] token_file: cannot read nope: No such file"),
        ("retry = { max_atempts = 1 }", "[jobs.a] retry.max_atempts: unknown key"),
    ],
)
def test_each_error_names_section_and_key(tmp_path: Path, job: str, said: str) -> None:
    """So that a person finds the place."""
    lines = problems(tmp_path, BASE + f'[jobs.a]\nkind = "probe"\ndatabase = "app"\n{job}\n')
    assert any(said in line for line in lines), lines


def test_a_database_that_does_not_exist_is_named_with_the_nearest(tmp_path: Path) -> None:
    """A typo in a reference is the commonest error of all."""
    (line,) = problems(tmp_path, BASE + '[jobs.a]\nkind = "probe"\ndatabase = "appp"\n')
    assert "there is no [databases.appp]" in line
    assert "did you mean 'app'?" in line


def test_a_job_written_twice_is_an_error(tmp_path: Path) -> None:
    """TOML refuses it; the message says it in words."""
    job = '[jobs.a]\nkind = "probe"\ndatabase = "app"\n'
    (line,) = problems(tmp_path, BASE + job + job)
    assert "written twice" in line
    assert line.startswith("config.toml:6:")


def test_the_environment_wins_over_dotenv_and_that_over_a_default(tmp_path: Path) -> None:
    """In this order."""
    (tmp_path / ".env").write_text("ONE=dotenv\nTWO=dotenv\n", encoding="utf-8")
    text = BASE + '[jobs.a]\nkind = "probe"\ndatabase = "app"\nnote = "${ONE} ${TWO:-x} ${THREE:-default} $$"\n'
    config = load(tmp_path, text, ONE="environment")
    assert config.params["a"]["note"] == "environment dotenv default $"


def test_secrets_are_referred_to_and_never_stored(tmp_path: Path) -> None:
    """Neither a secret field nor anything from a variable reaches a row; the executing daemon puts it back."""
    (tmp_path / "token").write_text("hunter2-token\n", encoding="utf-8")
    text = BASE + (
        '[jobs.a]\nkind = "probe"\ndatabase = "app"\ntoken_file = "token"\n'
        'headers = { Authorization = "Bearer ${KEY}" }\n'
    )
    config = load(tmp_path, text, KEY="hunter2-key")
    (job,) = config.jobs
    assert "hunter2" not in repr(job)
    assert {"hunter2-token", "hunter2-key"} <= config.secrets
    whole = config.resolve_params("a", dict(job.params))
    assert whole["token"] == "hunter2-token"
    assert whole["headers"] == {"Authorization": "Bearer hunter2-key"}
    with pytest.raises(ParamsInvalid, match="is a secret"):
        config.resolve_params("removed", dict(job.params))


def test_a_bare_file_name_is_a_systemd_credential(tmp_path: Path) -> None:
    """$CREDENTIALS_DIRECTORY is where systemd puts them."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "url").write_text("postgresql://u:hunter2@h/d", encoding="utf-8")
    text = '[databases.app]\nurl_file = "url"\n[jobs.a]\nkind = "probe"\ndatabase = "app"\n'
    config = load(tmp_path, text, CREDENTIALS_DIRECTORY=str(credentials))
    assert config.databases["app"].url == "postgresql://u:hunter2@h/d"
    assert "hunter2" in config.secrets
    assert "hunter2" not in repr(config.databases)


def test_no_error_shows_a_secret(tmp_path: Path) -> None:
    """A bad URL may hold a password."""
    lines = problems(
        tmp_path, '[databases.app]\nurl = "mysql://u:hunter2@h/d"\n[databases.b]\nurl = "${S}"\n', S="hunter2"
    )
    assert "hunter2" not in "\n".join(lines)
    assert len(lines) == 2


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """No traceback for the first thing that every newcomer does."""
    with pytest.raises(ConfigMissing, match=r"config.toml"):
        load_config(tmp_path / "config.toml", {}, {})


def test_a_config_without_jobs_is_refused_at_run(tmp_path: Path) -> None:
    """An empty file would remove every schedule."""
    config = load(tmp_path, "")
    config.require_jobs(allow_empty=True)
    with pytest.raises(ConfigInvalid, match="--allow-empty"):
        config.require_jobs(allow_empty=False)


def test_an_unchanged_job_keeps_its_hash_and_a_changed_one_does_not(tmp_path: Path) -> None:
    """The hash is what reconcile goes by."""
    text = BASE + '[jobs.a]\nkind = "probe"\ndatabase = "app"\nlimit = 2\n'
    first, again = load(tmp_path, text).jobs[0], load(tmp_path, text).jobs[0]
    assert first.definition_hash == again.definition_hash
    assert load(tmp_path, text.replace("2", "3")).jobs[0].definition_hash != first.definition_hash


def test_the_schema_knows_every_kind() -> None:
    """Editors complete the params of a kind."""
    schema = json_schema({"probe": PROBE})
    job = schema["$defs"]["job_probe"]  # type: ignore[index,call-overload]
    assert {"kind", "schedule", "limit", "retry"} <= set(job["properties"])  # type: ignore[index,call-overload,arg-type]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=60))
def test_no_text_at_all_ends_in_a_traceback(tmp_path: Path, text: str) -> None:
    """Only ConfigInvalid may come of it."""
    for body in (text, BASE + "[jobs.a]\n" + text, f'[daemon]\ntimezone = "{text}"\n'):
        with contextlib.suppress(ConfigInvalid):
            load(tmp_path, body)
