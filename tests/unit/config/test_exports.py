"""`[exports]` in the config: what is offered, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchd.config.load import load_config
from batchd.config.problems import ConfigInvalid
from batchd.domain.exporting import ExportSettings

BASE = """
[databases.app]
url = "sqlite:///app.db"
[jobs.export-users]
kind = "csv_export"
database = "app"
table = "users"
path = "out/users-{date}.csv"
[jobs.health]
kind = "health_check"
databases = ["app"]
"""
SOURCE = '[exports.sources.rows]\ndatabase = "app"\ntable = "rows"\ncolumns = ["id"]\n'


def load(folder: Path, text: str) -> ExportSettings | None:
    """Write the config and load it; return what it offers."""
    file = folder / "config.toml"
    file.write_text(BASE + text, encoding="utf-8")
    return load_config(file, {}).exports


def test_what_is_offered_is_whole(tmp_path: Path) -> None:
    """Paths are whole; without the section nothing is offered."""
    assert load(tmp_path, "") is None
    exports = load(tmp_path, '[exports]\njobs = ["export-users"]\n' + SOURCE)
    assert exports is not None
    assert exports.jobs["export-users"].path == str(tmp_path / "out" / "users-{date}.csv")
    assert exports.folder == str(tmp_path / "var" / "exports")
    assert exports.sources["rows"].columns == ("id",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[exports]\njobs = ["export-user"]', "there is no [jobs.export-user]"),
        ('[exports]\njobs = ["health"]', "is a health_check, not a csv_export"),
        (SOURCE.replace('"app"', '"ap"'), "there is no [databases.ap]"),
        (SOURCE.replace('columns = ["id"]', ""), "columns"),
        (SOURCE + 'query = "SELECT 1"', "exactly one of"),
        (SOURCE + 'formats = ["exe"]', "formats"),
        ("[exports]\nfolders = 1", "folders"),
    ],
)
def test_what_cannot_be_offered_is_told(tmp_path: Path, text: str, said: str) -> None:
    """By the section and the key."""
    with pytest.raises(ConfigInvalid) as raised:
        load(tmp_path, text)
    assert said in "\n".join(str(problem) for problem in raised.value.problems)
