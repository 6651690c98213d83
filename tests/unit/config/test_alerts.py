"""`[alerts]`, its channels and the `alerts` of jobs: what they mean, and what is said about mistakes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from batchd.config.load import Config, load_config
from batchd.config.problems import ConfigInvalid
from batchd.domain.alert import AlertRule

_MAIL = '[mail]\nfolder = "mail"\nfrom = "batchd@example.com"\n'
_OPS = '[alerts.channels.ops]\ntype = "email"\nto = "ann@example.com"\n'
_JOB = '[jobs.nightly]\nkind = "command"\ncommand = ["true"]\n'


def load(folder: Path, text: str, **environ: str) -> Config:
    """The config of that text."""
    file = folder / "config.toml"
    file.write_text(text)
    file.chmod(0o600)
    return load_config(file, environ)


def complaints(folder: Path, text: str) -> str:
    """All that is wrong with that text."""
    with pytest.raises(ConfigInvalid) as caught:
        load(folder, text)
    return "\n".join(str(problem).partition(" ")[2] for problem in caught.value.problems)


def test_a_config_without_a_word_about_alerts_has_the_usual_rules_and_no_channel(tmp_path: Path) -> None:
    """Incidents are kept all the same."""
    alerts = load(tmp_path, _JOB).alerts
    assert AlertRule.FAILED in alerts.policy.on
    assert AlertRule.TOO_QUIET not in alerts.policy.on
    assert alerts.channels == {}
    assert alerts.policy.tells_recovery


def test_a_job_changes_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    """`late` is another word for `missed`; no `to` means every channel."""
    said = 'alerts = { on = ["late"], grace = "2h", ping = "https://hc.example.com/abc" }\n'
    alerts = load(tmp_path, _MAIL + '[alerts]\nmax_duration = "1h"\n' + _OPS + _JOB + said).alerts
    policy = alerts.policy_of("nightly")
    assert policy.on == {AlertRule.MISSED}
    assert policy.grace == timedelta(hours=2)
    assert policy.max_duration == timedelta(hours=1)
    assert policy.to == ("ops",)
    assert not policy.tells_recovery
    assert alerts.pings["nightly"].name == "ping:nightly"
    assert alerts.policy_of("other") == alerts.policy


def test_nought_turns_a_limit_and_reminders_off(tmp_path: Path) -> None:
    """In [alerts] and for one job."""
    text = '[alerts]\np99_factor = 0\nremind_every = "0s"\n' + _JOB + "alerts = { p99_factor = 5 }\n"
    alerts = load(tmp_path, text).alerts
    assert alerts.policy.p99_factor is None
    assert alerts.remind_every is None
    assert alerts.policy_of("nightly").p99_factor == 5
    back = load(tmp_path, _JOB + "alerts = { p99_factor = 0 }\n").alerts
    assert (back.policy.p99_factor, back.policy_of("nightly").p99_factor) == (3, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[alerts]\non = ["faild"]\n', "[alerts] on.0: must be"),
        ('[alerts]\non = ["faild"]\n', "did you mean 'failed'?"),
        (
            '[alerts]\nto = ["opps"]\n' + _MAIL + _OPS,
            "there is no [alerts.channels.opps]; there are: ops; did you mean 'ops'",
        ),
        (_JOB + 'alerts = { to = ["opps"] }\n' + _MAIL + _OPS, "[jobs.nightly] alerts.to: there is no"),
        (_JOB + 'alerts = { graec = "1h" }\n', "alerts.graec: unknown key; did you mean 'grace'?"),
        (_JOB + 'alerts = { on = ["daemon_lost"] }\n', "is about no job; write it in [alerts]"),
        (_JOB + 'alerts = { ping = "hc.example.com" }\n', "must be an http:// or https:// URL"),
        (_JOB + "alerts = { ping = { sucess = 'https://x.example.com' } }\n", "did you mean 'success'?"),
        (_JOB + "alerts = { ping = {} }\n", "names no URL"),
        ("[defaults]\nalerts = { on = [] }\n", "what holds for all jobs stands in [alerts]"),
        ("[alerts]\ngrase = '1m'\n", "unknown key; did you mean 'grace'?"),
        ("[alerts]\np99_factor = 0.5\n", "must be more than 1 and at most 1000, or 0"),
        ("[alerts]\ndaemon_silence = '5s'\n", "must be at least"),
        ("[alerts.queues]\ncritcal = '5s'\n[queues.critical]\n", "did you mean 'critical'?"),
        (_OPS, "[alerts.channels.ops] type: sends mail, and there is no [mail]"),
        (_MAIL + _OPS + 'quiet_hours = "25:00-07:00"\n', "no clock shows"),
        (_MAIL + _OPS + 'quiet_hours = "22:00-22:00"\n', "quiet all day"),
        (_MAIL + _OPS + 'quiet_hours = "22:00-07:00"\ntimezone = "Mars/Base"\n', "timezone"),
        (_MAIL + _OPS + 'timezone = "UTC"\n', "of no use without"),
        (_MAIL + _OPS + 'rate = "many"\n', "is no rate"),
        (_MAIL + _OPS.replace("@", " at "), "is not a mail address"),
        (_MAIL + _OPS.replace("to =", "too ="), "did you mean 'to'?"),
        ('[alerts.channels.x]\ntype = "emial"\n', "did you mean 'email'?"),
        ('[alerts.channels.x]\ntype = "ping"\n', "a ping belongs to a job"),
        ("[alerts.channels.x]\n", "has no `type`; there are: email, webhook"),
        ('[alerts.channels."a b"]\ntype = "email"\n', "a name has up to"),
        ('[alerts.channels.x]\ntype = "webhook"\nurl = "ftp://x"\n', "must be an http:// or https:// URL"),
        (
            '[alerts.channels.x]\ntype = "webhook"\nurl = "https://x.example"\nformat = "slak"\n',
            "did you mean 'slack'?",
        ),
        ('[alerts.channels.x]\ntype = "webhook"\nurl = "https://x.example"\nsecret = "short"\n', "at least 16"),
        (
            '[alerts.channels.x]\ntype = "webhook"\nurl = "https://x.example"\nformat = "slack"\nsecret = "'
            + "x" * 16
            + '"\n',
            "checks no signature",
        ),
        ('[alerts.channels.x]\ntype = "webhook"\nurl = "https://x.example"\nurl_file = "f"\n', "not both"),
        ("[alerts]\nchannels = 3\n", "must be a table"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_nearest_name(tmp_path: Path, text: str, said: str) -> None:
    """`batchd check` reads the config in the same way."""
    assert said in complaints(tmp_path, text)


def test_urls_and_keys_of_channels_are_secrets(tmp_path: Path) -> None:
    """From a variable, from a file, and written in the config itself."""
    (tmp_path / "key").write_text("0123456789abcdef-key\n")
    text = (
        '[alerts.channels.x]\ntype = "webhook"\nurl = "${HOOK}"\nsecret_file = "key"\n' + _JOB + "alerts = "
        '{ ping = "https://hc.example.com/canary" }\n'
    )
    config = load(tmp_path, text, HOOK="https://hooks.example.com/T0/B0")
    assert config.secrets >= {
        "https://hooks.example.com/T0/B0",
        "0123456789abcdef-key",
        "https://hc.example.com/canary",
    }
    assert "canary" not in repr(config.alerts)
    assert "hooks.example.com" not in repr(config.alerts)
