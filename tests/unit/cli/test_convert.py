"""`batchd convert`, as it is typed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from batchd.cli.main import main
from tests.unit.moving.golden import FOLDER


def test_a_crontab_becomes_a_config_that_passes_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data goes to stdout, a summary to stderr; the zone is the one that was said."""
    source = tmp_path / "crontab"
    source.write_text("15 3 * * * /usr/local/bin/backup.sh\n")
    assert main(["convert", str(source), "--timezone", "Asia/Tokyo"]) == 0
    said = capsys.readouterr()
    config = tmp_path / "jobs.toml"
    config.write_text(said.out)
    assert tomllib.loads(said.out)["jobs"]["backup"]["timezone"] == "Asia/Tokyo"
    assert "1 job from 1 file" in said.err
    assert main(["check", "--config", str(config)]) == 0


def test_a_timer_brings_its_service_and_drop_ins(capsys: pytest.CaptureFixture[str]) -> None:
    """Naming the timer is enough."""
    assert main(["convert", str(FOLDER / "systemd" / "backup.timer"), "--timezone", "Europe/Berlin"]) == 0
    jobs = tomllib.loads(capsys.readouterr().out)["jobs"]
    assert jobs["backup"]["schedule"] == "15 2 * * 1-5"
    assert "tar -C /srv" in str(jobs["backup"]["command"])


def test_a_folder_stands_for_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    """`batchd convert DIR` reads each file in it, and jobs of equal names get numbers."""
    assert main(["convert", str(FOLDER / "several"), "--from", "crontab"]) == 0
    jobs = tomllib.loads(capsys.readouterr().out)["jobs"]
    assert {"backup", "backup-2", "backup-3"} <= jobs.keys()


def test_explain_speaks_to_people_and_to_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line has its old meaning and the new one."""
    source = tmp_path / "crontab"
    source.write_text("MAILTO=ops@example.com\n30 4 1,15 * 5 /usr/bin/report\n")
    assert main(["convert", str(source), "--explain", "--timezone", "UTC"]) == 0
    text = capsys.readouterr().out
    assert "old     30 4 1,15 * 5 /usr/bin/report" in text
    assert "Friday" in text
    assert "[jobs.report]" in text
    assert main(["convert", str(source), "--explain", "--json", "--timezone", "UTC"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert [line["job"] for line in lines] == [None, "report"]
    assert lines[0]["new"] == ["batchd mails no output; [alerts] can mail failures"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.timer"], "cannot be read"),
        (["notes.txt"], "cannot tell what this is"),
        (["broken.yml", "--from", "sidekiq"], "broken.yml:1: not YAML"),
        (["notes.txt", "--timezone", "Mars/Base"], "unknown time zone"),
        (["notes.txt", "--base-url", "shop"], "absolute"),
        (["notes.txt", "--json"], "--explain"),
    ],
)
def test_mistakes_get_one_message(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong, and where."""
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("buy milk")
    Path("broken.yml").write_text("cron: *not an alias\n")
    assert main(["convert", *arguments]) == 2
    assert said in capsys.readouterr().err
