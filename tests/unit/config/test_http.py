"""`[http]`: what is wrong with it is told in its own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchd.config.difference import difference, needs_restart
from batchd.config.load import Config, load_config
from batchd.config.problems import ConfigInvalid

_SHORT = "shorter-than-16"


def test_a_short_secret_is_told_in_characters_and_not_shown(tmp_path: Path) -> None:
    """A secret is a text, not a list."""
    file = tmp_path / "config.toml"
    file.write_text(f'[http]\ncron_secret = "{_SHORT}"\n')
    with pytest.raises(ConfigInvalid) as raised:
        load_config(file, {})
    (problem,) = raised.value.problems
    assert "[http] cron_secret: must have at least 16 characters" in str(problem)
    assert _SHORT not in str(problem)


def _read(folder: Path, http: str) -> Config:
    file = folder / "config.toml"
    file.write_text(http)
    file.chmod(0o600)
    return load_config(file, {})


def test_a_reload_takes_over_all_but_where_it_listens(tmp_path: Path) -> None:
    """Also that of its links in alerts; whether there is one at all takes a restart."""
    none = _read(tmp_path, "")
    before = _read(tmp_path, "[http]\nmax_body = 2048\n")
    after = _read(
        tmp_path,
        '[http]\nlisten = "127.0.0.1:1"\nhosts = ["x"]\nrate = "5/s"\nmax_listeners = 7\npublic_url = "https://b.example"\n',
    )
    keys = ("http.hosts", "http.max_body", "http.max_listeners", "http.public_url", "http.rate")
    assert difference(before, after).settings == keys
    assert needs_restart(before, after) == ("http.listen",)
    assert after.alerts.site == "https://b.example"
    assert needs_restart(none, before) == ("http",)
    assert needs_restart(before, none) == ("http",)


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:secret@b.example",
        "https://b.example:port",
        "https://b.example#x",
        "https://b.example/x",
        "b.example",
    ],
)
def test_a_public_url_is_a_site_and_holds_nobodys_password(tmp_path: Path, url: str) -> None:
    """It stands in alerts, and requests are compared with it."""
    with pytest.raises(ConfigInvalid) as raised:
        _read(tmp_path, f'[http]\npublic_url = "{url}"\n')
    (problem,) = raised.value.problems
    assert "must be the URL of a site, without a path" in str(problem)
