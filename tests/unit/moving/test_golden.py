"""Whole files in the wild style, converted: the results were read by a person line by line, and pass `batchd check`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from batchd.cli.main import main
from tests.unit.moving.golden import FOLDER, GOLDEN, Golden

_SCHEDULES_ALONE = {"crontab", "system-crontab", "systemd", "whenever", "sidekiq", "solid-queue", "good-job"}
"""Those whose sources hold nothing but schedules."""

_BY_NAME = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)


@_BY_NAME
def test_a_conversion_is_as_it_was_read(golden: Golden) -> None:
    """The config is the one in the repository, comments included."""
    assert golden.toml() == (golden.folder / "expected.toml").read_text(encoding="utf-8")


@_BY_NAME
def test_an_explanation_is_as_it_was_read(golden: Golden) -> None:
    """So is what --explain says, line by line."""
    assert golden.explanation() == (golden.folder / "expected.explain").read_text(encoding="utf-8")


@_BY_NAME
def test_a_conversion_passes_check(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`batchd check` finds nothing wrong, with none of the variables set."""
    for name in ("APP_URL", "CRON_SECRET", "RAILS_MASTER_KEY", "REPORT_CRON"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "jobs.toml"
    config.write_text((golden.folder / "expected.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["check", "--config", str(config)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "golden", [each for each in GOLDEN if each.name in _SCHEDULES_ALONE], ids=lambda golden: golden.name
)
def test_no_line_of_a_source_is_lost(golden: Golden) -> None:
    """Every line of a crontab, a unit or a schedule stands in the result: in a job's comment or by itself."""
    result = golden.toml()
    kept = "".join(result.split())
    for file in golden.files:
        for line in (golden.folder / file).read_text(encoding="utf-8").split("\n"):
            parts = [part for part in line.split() if len(part) > 3 and part.isalnum()]
            missing = [part for part in parts if part not in kept]
            assert not missing or _is_structure(line), (file, line, missing)


def test_each_folder_is_a_golden() -> None:
    """No folder with expectations is forgotten."""
    assert {folder.name for folder in FOLDER.iterdir()} == {golden.name for golden in GOLDEN}


def test_names_are_unique_over_all_files() -> None:
    """Jobs that are called alike in several files get numbers, and all of them are in the config."""
    golden = next(each for each in GOLDEN if each.name == "several")
    assert list(tomllib.loads(golden.toml())["jobs"]) == ["backup", "backup-2", "backup-3", "backup-4"]


def _is_structure(line: str) -> bool:
    """Whether the line holds only what TOML has in another form: sections, what installs a unit, descriptions, ends."""
    words = (
        "[",
        "Description",
        "WantedBy",
        "SuccessExitStatus",  # names of exit codes become numbers
        "AccuracySec",
        "---",
        "staging:",
        "production:",
        ";",
        "# the old",
        "default:",
    )
    return line.strip().startswith(words) or line.strip() in {"", "end"}
