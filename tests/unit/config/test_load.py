"""A config is right, or everything that is wrong with it is said at once."""

from __future__ import annotations

import contextlib
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchd.config import places
from batchd.config.document import ConfigMissing
from batchd.config.load import Config, load_config
from batchd.config.places import config_path
from batchd.config.problems import ConfigInvalid, CredentialDenied
from batchd.domain.job import CatchUp
from batchd.errors import ExitCode, ParamsInvalid
from tests.support.batchd_kinds import PROBE
from tests.support.rights import without_root

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
        'timeout = "x"\n[jobs.d]\nkind = "prob"\nschedule = "every 5 minuts"\ntimeout = "y"\n'
    )
    said = problems(tmp_path, text)
    for expected in (
        "config.toml:2: [daemon] workrs: unknown key; did you mean 'workers'?",
        "config.toml:6: [jobs.a] kind: there is no kind 'prob'; there are: probe; did you mean 'probe'?",
        "config.toml:12: [jobs.b] limt: unknown key; did you mean 'limit'?",
    ):
        assert expected in said
    assert any(line.startswith("config.toml:11: [jobs.b] timezone: unknown time zone") for line in said)
    for beginning in (
        "config.toml:10: [jobs.b] schedule: '0 0 31 2 *' is not a cron schedule",  # though its zone is none
        "config.toml:16: [jobs.c] queue: there is no [queues.fast]; there are: default",
        "config.toml:17: [jobs.c] timeout: not a duration: 'x'",
        'config.toml:20: [jobs.d] schedule: cannot read "every 5 minuts"',  # though its kind is none
        "config.toml:21: [jobs.d] timeout: not a duration: 'y'",
    ):
        assert any(line.startswith(beginning) for line in said), said


def test_an_error_in_one_section_hides_and_makes_none_elsewhere(tmp_path: Path) -> None:
    """A queue and a database that are written are there, whatever is wrong beside or in them."""
    text = (
        '[daemon]\nworkrs = 3\n[store]\nurl = "mysql://h/db"\n'
        '[databases.app]\nurl = "sqlite:///app.db"\npool_size = "many"\n'
        '[mail]\nhost = "h"\n[queues.fast]\nconcurrency = 0\n'
        '[jobs.a]\nkind = "probe"\ndatabase = "app"\nqueue = "fast"\n'
    )
    said = problems(tmp_path, text)
    assert len(said) == 5, said
    for number, beginning in ((2, "workrs"), (4, "url"), (7, "pool_size"), (8, "from"), (11, "concurrency")):
        assert any(f"config.toml:{number}: " in line and beginning in line for line in said), said


def test_a_wrong_database_is_told_beside_a_wrong_parameter(tmp_path: Path) -> None:
    """Neither hides the other."""
    said = problems(tmp_path, BASE + '[jobs.a]\nkind = "probe"\ndatabase = "appp"\nlimt = 2\n')
    assert [line for line in said if "[databases.appp]" in line and "'app'?" in line], said
    assert len(said) == 2, said


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ('timeout = "0s"', "[jobs.a] timeout: must be more than 0s"),
        ('timeout = "9999999d"', "[jobs.a] timeout: duration too long"),
        ('schedule = "0 0 31 2 *"', "[jobs.a] schedule: '0 0 31 2 *' is not a cron schedule: bad day-of-month field"),
        ('queue = "fast"', "[jobs.a] queue: there is no [queues.fast]"),
        ('note = "${NOPE}"', "[jobs.a] note: the environment variable NOPE is not set"),
        ('token_file = "nope"', "[jobs.a] token_file: cannot read nope: No such file"),
        ("retry = { max_atempts = 1 }", "[jobs.a] retry.max_atempts: unknown key; did you mean 'max_attempts'?"),
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


def test_a_database_is_named_where_it_is_written(tmp_path: Path) -> None:
    """In a list, and in a table within the job."""
    (tmp_path / "config.toml").write_text(
        f'{BASE}[jobs.a]\nkind = "health_check"\ndatabases = ["app", "nix"]\n'
        '[jobs.b]\nkind = "report"\nsave_to = "b.html"\nqueries.day = { sql = "SELECT 1", database = "nix" }\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigInvalid) as raised:
        load_config(tmp_path / "config.toml", {})
    places = [(problem.line, problem.key) for problem in raised.value.problems]
    assert places == [(5, "databases"), (9, "queries.day.database")]


def test_a_job_written_twice_is_an_error(tmp_path: Path) -> None:
    """TOML refuses it; the message says it in words."""
    job = '[jobs.a]\nkind = "probe"\ndatabase = "app"\n'
    (line,) = problems(tmp_path, BASE + job + job)
    assert "written twice" in line
    assert line.startswith("config.toml:6:")


def test_the_environment_wins_over_dotenv_and_that_over_a_default(tmp_path: Path) -> None:
    """In this order."""
    (tmp_path / ".env").write_text("ONE=dotenv\nTWO=dotenv\n", encoding="utf-8")
    text = BASE + '[jobs.a]\nkind = "probe"\ndatabase = "app"\nnote = "${ONE} ${TWO:-x} ${THREE:-de$$f$ault} $$"\n'
    config = load(tmp_path, text, ONE="environment")
    assert config.params["a"]["note"] == "environment dotenv de$f$ault $"


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


def test_a_credential_of_the_service_is_missed_only_where_it_is_used(tmp_path: Path) -> None:
    """A terminal has none: the config is read all the same, jobs hash alike, and whoever needs the secret is told."""
    text = (
        '[store]\nurl_file = "store-url"\n[databases.app]\nurl_file = "app-url"\n'
        '[mail]\nhost = "mail"\nfrom = "a@example.com"\nuser = "u"\npassword_file = "mail-password"\n'
        '[alerts.channels.ops]\ntype = "webhook"\nurl_file = "hook"\n'
        '[jobs.a]\nkind = "probe"\ndatabase = "app"\ntoken_file = "token"\n'
    )
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    contents = {"store-url": "sqlite:///s.db", "app-url": "sqlite:///a.db", "hook": "https://example.com/hook"}
    for name in ("store-url", "app-url", "mail-password", "hook", "token"):
        (credentials / name).write_text(contents.get(name, "hunter2"))
    service = load(tmp_path, text, CREDENTIALS_DIRECTORY=str(credentials))
    assert service.withheld == ()
    assert len(problems(tmp_path, text)) >= 5

    config = load_config(tmp_path / "config.toml", {}, {"probe": PROBE}, may_lack_secrets=True)
    assert config.jobs == service.jobs
    assert (config.databases, config.secrets) == ({}, frozenset())
    said = [problem.message for problem in config.withheld]
    assert {word.partition(" is a credential")[0] for word in said} == {path.name for path in credentials.iterdir()}
    config.require_secrets(())
    for section in ("store", "databases", "mail", "alerts", "jobs"):
        with pytest.raises(CredentialDenied) as raised:
            config.require_secrets((section,))
        assert len(raised.value.problems) == 1
    # A path is no credential: somebody has mistyped it.
    (tmp_path / "config.toml").write_text(text.replace('"token"', '"./token"'))
    with pytest.raises(ConfigInvalid, match="cannot read token"):
        load_config(tmp_path / "config.toml", {}, {"probe": PROBE}, may_lack_secrets=True)


def test_a_secret_file_must_be_there_and_hold_something(tmp_path: Path) -> None:
    """A missing, an empty and a binary one are told; one that may not be read is a matter of permission."""
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    job = '[jobs.{0}]\nkind = "probe"\ndatabase = "app"\ntoken_file = "{0}"\n'
    lines = problems(tmp_path, BASE + "".join(job.format(name) for name in ("missing", "empty", "binary")))
    for line, said in zip(lines, ("No such file", "is empty", "not UTF-8"), strict=True):
        assert said in line
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # pytest's own folders are closed to everybody else
        (folder / "closed").touch(mode=0o000)
        (folder / "config.toml").write_text(BASE + job.format("closed"))
        with without_root(), pytest.raises(CredentialDenied) as raised:
            load_config(folder / "config.toml", {}, {"probe": PROBE})
    assert raised.value.exit_code is ExitCode.NO_PERMISSION


def test_a_working_directory_that_cannot_be_seen_holds_no_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo -u batchd` leaves the command in somebody's home: the config in /etc is meant."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        home, usual = Path(name, "home"), Path(name, "etc", "config.toml")
        home.mkdir(mode=0o700)
        usual.parent.mkdir(mode=0o700)
        written = Path(name, "config.toml")
        written.write_text(BASE + '[jobs.a]\nkind = "probe"\ndatabase = "app"\n')
        Path(name).chmod(0o755)
        monkeypatch.setattr(places, "CONFIG_PLACES", (Path("config.toml"), usual))
        load_config(written, {}, {"probe": PROBE})  # imports what it needs, while that may be read
        with contextlib.chdir(home), without_root():
            assert config_path(None, {}) == usual  # and reading it tells that it may not be read
            assert len(load_config(written, {}, {"probe": PROBE}).jobs) == 1


def test_a_dotenv_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Not with a traceback, and not by ignoring it."""
    (tmp_path / ".env").write_bytes(b"\xff\xfeA=1")
    (line,) = problems(tmp_path, BASE)
    assert ".env: it is not UTF-8 text" in line


def test_an_empty_variable_is_not_a_value(tmp_path: Path) -> None:
    """It takes the default, and without one it is told apart from one that is not set."""
    text = BASE + '[jobs.a]\nkind = "probe"\ndatabase = "app"\nnote = "{}"\n'
    assert load(tmp_path, text.format("${ONE:-default}"), ONE="").params["a"]["note"] == "default"
    (line,) = problems(tmp_path, text.format("${ONE}"), ONE="")
    assert "the environment variable ONE is empty" in line


def test_only_what_can_be_a_secret_is_masked(tmp_path: Path) -> None:
    """A level, a zone or a schedule from the environment does not blank out half of the log."""
    text = (
        '[log]\nlevel = "${LEVEL}"\n[daemon]\nworkers = "${WORKERS}"\n'
        + BASE
        + ('[jobs.a]\nkind = "probe"\ndatabase = "app"\nschedule = "${WHEN}"\nnote = "${NOTE}"\n')
    )
    config = load(tmp_path, text, LEVEL="debug", WORKERS="1000", WHEN="@daily", NOTE="a secret")
    assert config.secrets == {"a secret"}
    assert (config.settings.log.level, config.settings.daemon.workers) == ("debug", 1000)


def test_a_secret_in_a_file_for_everybody_is_warned_about(tmp_path: Path) -> None:
    """In a URL or in a secret param; not when it comes from a variable or the file is closed to others."""
    (tmp_path / "token").write_text("hunter2")
    text = (
        '[databases.app]\nurl = "postgresql://u:hunter2@h/d"\n[databases.b]\nurl = "postgresql://u:${P}@h/d"\n'
        '[jobs.a]\nkind = "probe"\ndatabase = "app"\ntoken = "hunter2"\n'
        '[jobs.b]\nkind = "probe"\ndatabase = "app"\ntoken_file = "token"\n'
    )
    warnings = load(tmp_path, text, P="hunter2").warnings
    assert [(warning.line, warning.section, warning.key) for warning in warnings] == [
        (2, "databases.app", "url"),
        (8, "jobs.a", "token"),
    ]
    assert "hunter2" not in str(warnings)
    (tmp_path / "config.toml").chmod(0o640)
    assert load_config(tmp_path / "config.toml", {"P": "hunter2"}, {"probe": PROBE}).warnings == ()


def test_a_url_as_hosting_platforms_write_it_is_understood(tmp_path: Path) -> None:
    """`postgres://` means postgresql."""
    config = load(tmp_path, '[databases.app]\nurl = "${U}"\n', U="postgres://u:hunter2@h/d")
    assert config.databases["app"].url == "postgresql://u:hunter2@h/d"
    assert "hunter2" in config.secrets


def test_no_error_shows_a_secret(tmp_path: Path) -> None:
    """A bad URL may hold a password."""
    lines = problems(
        tmp_path, '[databases.app]\nurl = "mysql://u:hunter2@h/d"\n[databases.b]\nurl = "${S}"\n', S="hunter2"
    )
    assert "hunter2" not in "\n".join(lines)
    assert len(lines) == 2


@pytest.mark.parametrize("where", ["?host=a,b&port=1", "?host=a&host=b&port=1", "?host=a&port=1,2"])
def test_hosts_and_ports_that_do_not_match_are_told(tmp_path: Path, where: str) -> None:
    """The driver would find them at the first connection only."""
    (line,) = problems(tmp_path, f'[databases.app]\nurl = "postgresql://u:hunter2@/d{where}"\n')
    assert "config.toml:2: [databases.app] url: " in line
    assert "one port for each host" in line
    assert "hunter2" not in line


def test_a_variable_in_the_wrong_place_is_not_shown(tmp_path: Path) -> None:
    """Whoever writes the password's variable for a table, or the password's file for the URL's, does not print it."""
    (tmp_path / "password").write_text("it's \\hunter2\n")
    said = "\n".join(
        problems(
            tmp_path,
            '[databases.app]\nurl = "sqlite:///app.db"\n[jobs.a]\nkind = "probe"\ndatabase = "${P}"\n'
            '[databases.b]\nurl_file = "password"\n[jobs.b]\nkind = "probe"\ndatabase = "app"\nlimit = "${P}"\n',
            P="it's \\hunter2",
        )
    )
    assert "hunter2" not in said
    assert "there is no [databases.***]" in said


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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=60))
def test_no_text_at_all_ends_in_a_traceback(tmp_path: Path, text: str) -> None:
    """Only ConfigInvalid may come of it."""
    for body in (text, BASE + "[jobs.a]\n" + text, f'[daemon]\ntimezone = "{text}"\n'):
        with contextlib.suppress(ConfigInvalid):
            load(tmp_path, body)
