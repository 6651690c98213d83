"""`[http]`: what is wrong with it is told in its own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchd.config.load import load_config
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
