"""`then`, and jobs that run elsewhere, in the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchd.config.load import Config, load_config
from batchd.config.problems import ConfigInvalid

BASE = '[databases.app]\nurl = "sqlite:///app.db"\n'
SEND = '[jobs.send]\nkind = "email"\nsubject = "Done"\n[mail]\nfolder = "mail"\nfrom = "me@example.com"\n'
HEALTH = '[jobs.health]\nkind = "health_check"\ndatabases = ["app"]\n'


def load(folder: Path, text: str, **environ: str) -> Config:
    """Write the config and load it, with the kinds that there are."""
    file = folder / "config.toml"
    file.write_text(BASE + text, encoding="utf-8")
    return load_config(file, environ)


def problems(folder: Path, text: str, **environ: str) -> str:
    """Return what is wrong."""
    with pytest.raises(ConfigInvalid) as raised:
        load(folder, text, **environ)
    return "\n".join(str(problem) for problem in raised.value.problems)


def then_of(config: Config, name: str) -> object:
    """Return the job's `then` as its row has it."""
    return next(job for job in config.jobs if job.name == name).then


def test_a_name_hands_on_what_the_other_job_does_not_set_itself(tmp_path: Path) -> None:
    """`subject` is set in the config, so no result replaces it; `to` and `text` may come."""
    then = then_of(load(tmp_path, HEALTH + 'then = "send"\n' + SEND), "health")
    assert isinstance(then, dict)
    assert then["job"] == "send"
    assert {"to", "text"} <= set(then["take"])
    assert "subject" not in then["take"]


def test_a_table_says_what_goes_along(tmp_path: Path) -> None:
    """And nothing else does."""
    then = '{ job = "send", params = { text = "run {run_id}: {result.state}" }, delay = "5m" }'
    found = then_of(load(tmp_path, HEALTH + f"then = {then}\n" + SEND), "health")
    assert found == {"job": "send", "params": {"text": "run {run_id}: {result.state}"}, "delay_seconds": 300.0}


def test_a_job_without_then_is_what_it_was(tmp_path: Path) -> None:
    """Its hash too: an upgrade changes no row."""
    (job,) = load(tmp_path, HEALTH).jobs
    assert job.then is None


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ('"snd"', "there is no [jobs.snd]"),
        ('"health"', "is the job itself"),
        ("{ params = {} }", "job"),
        ('{ job = "send", params = { txt = "x" } }', "is no parameter of kind 'email'"),
        ('{ job = "send", params = { text = "{rows}" } }', "has a place {rows}"),
        ('{ job = "send", params = { text = "{result.x" } }', "single {"),
        ('{ job = "send", params = { text = "${TOKEN}" } }', "would be stored with each run"),
        ('{ job = "send", parms = {} }', "parms"),
        ('"cron"', "runs elsewhere"),
        ("5", "then"),
    ],
)
def test_what_is_wrong_with_a_then(tmp_path: Path, then: str, expected: str) -> None:
    """Told with everything else, before anything runs."""
    text = HEALTH + f"then = {then}\n" + SEND + '[jobs.cron]\nkind = "external"\n'
    assert expected in problems(tmp_path, text, TOKEN="t0ken")


def test_a_chain_that_comes_round_is_refused(tmp_path: Path) -> None:
    """It would never come to an end."""
    jobs = "".join(
        f'[jobs.{name}]\nkind = "health_check"\ndatabases = ["app"]\nthen = "{following}"\n'
        for name, following in (("a", "b"), ("b", "c"), ("c", "b"))
    )
    assert "b → c → b" in problems(tmp_path, jobs)


def test_a_then_for_all_jobs_is_refused(tmp_path: Path) -> None:
    """The job that it names would follow itself."""
    assert "belongs to one job" in problems(tmp_path, '[defaults]\nthen = "send"\n' + SEND)


def test_a_job_that_runs_elsewhere_says_when_it_is_expected(tmp_path: Path) -> None:
    """`schedule` would start it here."""
    config = load(tmp_path, '[jobs.backup]\nkind = "external"\nexpected = "every day at 03:00"\ngrace = "30m"\n')
    assert config.jobs[0].schedule is None
    assert "say with `expected`" in problems(tmp_path, '[jobs.backup]\nkind = "external"\nschedule = "@daily"\n')
    assert "expected" in problems(tmp_path, '[jobs.backup]\nkind = "external"\nexpected = "evry day"\n')
    assert "grace" in problems(tmp_path, '[jobs.backup]\nkind = "external"\ngrace = "5m"\n')


def test_modules_to_import_are_named_in_the_config(tmp_path: Path) -> None:
    """`import` is no word for a field in Python, and one in TOML."""
    assert load(tmp_path, '[daemon]\nimport = ["myapp.alerts"]\n').settings.daemon.imports == ["myapp.alerts"]
