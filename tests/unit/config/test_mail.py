"""`[mail]`: defaults, secrets, and what is wrong with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from batchd.config.load import Config, load_config
from batchd.config.problems import ConfigInvalid
from batchd.mail.delivery import Security

_MAILING = '[jobs.m]\nkind = "email"\nsubject = "x"\ntext = "y"\n'


def load(folder: Path, text: str, **environ: str) -> Config:
    """Write the config and load it."""
    (folder / "config.toml").write_text(text, encoding="utf-8")
    return load_config(folder / "config.toml", environ)


def problems(folder: Path, text: str) -> list[str]:
    """Return what is wrong, without the file's folder."""
    with pytest.raises(ConfigInvalid) as raised:
        load(folder, text)
    return [str(problem).replace(str(folder) + "/", "") for problem in raised.value.problems]


@pytest.mark.parametrize(("security", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_the_port_follows_the_security(security: str, port: int, tmp_path: Path) -> None:
    """Unless it is set."""
    text = f'[mail]\nhost = "mx"\nfrom = "Bücher <b@bücher.example>"\nsecurity = "{security}"\n'
    mail = load(tmp_path, text).mail
    assert mail is not None
    assert (mail.security, mail.port, mail.timeout) == (Security(security), port, timedelta(seconds=30))
    assert mail.sender.address == "b@xn--bcher-kva.example"
    moved = load(tmp_path, text + "port = 2525\n").mail
    assert moved is not None
    assert moved.port == 2525


def test_a_password_from_a_file_is_a_secret(tmp_path: Path) -> None:
    """It is known to the mask, and does not show in the settings."""
    (tmp_path / "pw").write_text("canary-5521\n")
    config = load(tmp_path, '[mail]\nhost = "mx"\nfrom = "a@b.c"\nuser = "u"\npassword_file = "pw"\n')
    assert config.mail is not None
    assert config.mail.password == "canary-5521"
    assert "canary-5521" in config.secrets
    assert "canary" not in repr(config.mail)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ('host = "mx"', "config.toml:1: [mail] from: is missing"),
        ('from = "a@b.c"', "config.toml:1: [mail] set either `host`"),
        ('from = "a@b.c"\nhost = "mx"\nfolder = "m"', "config.toml:1: [mail] set either `host`"),
        ('host = "mx"\nfrom = "nobody"', "config.toml:3: [mail] from: 'nobody' is not a mail address"),
        ('host = "mx"\nfrom = "a@b.c"\nuser = "u"', "config.toml:4: [mail] user: `user` and `password`"),
        ('host = "mx"\nfrom = "a@b.c"\npassword = "secret"', "[mail] user: `user` and `password`"),
        (
            'host = "mx"\nfrom = "a@b.c"\nuser = "u"\npassword = "secret"\nsecurity = "none"',
            "config.toml:6: [mail] security: the password would travel unprotected",
        ),
        ('host = "mx"\nfrom = "a@b.c"\nca_file = "nope.pem"', "config.toml:4: [mail] ca_file: there is no file"),
        ('host = "mx"\nfrom = "a@b.c"\nsecurty = "tls"', "unknown key; did you mean 'security'?"),
        ('host = "mx"\nfrom = "a@b.c"\nfrm = "x"', "unknown key; did you mean 'from'?"),
    ],
)
def test_what_is_wrong_is_said_once_with_its_line(section: str, expected: str, tmp_path: Path) -> None:
    """A job that needs `[mail]` does not complain as well."""
    (said,) = problems(tmp_path, f"[mail]\n{section}\n{_MAILING}")
    assert expected in said
    assert "secret" not in said


def test_a_job_that_mails_needs_the_section(tmp_path: Path) -> None:
    """And says what to write."""
    (said,) = problems(tmp_path, _MAILING)
    assert "[jobs.m] sends mail, and there is no [mail]" in said


def test_a_password_may_travel_to_this_machine_itself(tmp_path: Path) -> None:
    """As to a relay on the same host."""
    text = '[mail]\nhost = "127.0.0.1"\nfrom = "a@b.c"\nsecurity = "none"\nuser = "u"\npassword = "secret"\n'
    assert load(tmp_path, text).mail is not None
