"""The units as files: what systemd itself says of them, and that the two of them stay one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.needs import require

UNITS = Path(__file__).resolve().parents[3] / "systemd"
DROP_INS = sorted((UNITS / "drop-ins").glob("*.conf"))
WORST_SCORE = 1.6

analyzed = pytest.mark.usefixtures("systemd_analyze")


@pytest.fixture
def systemd_analyze() -> None:
    """See that systemd can be asked; in CI it must."""
    require(None if shutil.which("systemd-analyze") else "there is no systemd-analyze here (apt-get install systemd)")


def directives(name: str) -> list[str]:
    """Return the lines of a unit that mean something."""
    return [line for line in (UNITS / name).read_text().splitlines() if line and not line.startswith("#")]


def placed(folder: Path, *drop_ins: Path) -> Path:
    """Put the unit, with a program that there is, into a folder; return its path."""
    for name in ("batchd.service", "batchd@.service", "batchd.socket"):
        (folder / name).write_text((UNITS / name).read_text().replace("/opt/batchd/bin/batchd", sys.executable))
    for file in drop_ins:
        (folder / "batchd.service.d").mkdir(exist_ok=True)
        text = file.read_text().replace("/opt/batchd/bin/batchd", sys.executable)
        (folder / "batchd.service.d" / file.name).write_text(text)
    return folder / "batchd.service"


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; it reads files and needs no running systemd."""
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False)


def score(*arguments: str | Path) -> float:
    """Return what `systemd-analyze security` says of a unit."""
    said = analyze("security", "--offline=true", "--no-pager", *arguments).stdout
    found = re.search(r"exposure level for .*: ([0-9.]+)", said)
    assert found, said
    return float(found[1])


@analyzed
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """Not a word, since it ends with 0 even over a directive that it does not know."""
    placed(tmp_path)
    said = analyze("verify", "--man=no", *(tmp_path / name for name in ("batchd.service", "batchd@.service")))
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@analyzed
@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.stem)
def test_systemd_finds_nothing_wrong_with_a_drop_in(drop_in: Path, tmp_path: Path) -> None:
    """Each of the drop-ins works with the unit as it stands."""
    said = analyze("verify", "--man=no", placed(tmp_path, drop_in))
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@analyzed
def test_the_sandbox_is_as_tight_as_promised(tmp_path: Path) -> None:
    """The unit's own comment names the score, and it is no more than 1.6."""
    found = score(placed(tmp_path))
    assert found <= WORST_SCORE
    assert f"says {found} of 10" in (UNITS / "batchd.service").read_text()


def test_the_instances_differ_from_the_service_in_names_only() -> None:
    """Whoever changes one of the two units changes both."""
    service, instance = directives("batchd.service"), directives("batchd@.service")
    only_there = {line for line in instance if line not in service}
    assert {line.partition("=")[0] for line in only_there} == {
        *("Description", "ExecStart", "ExecReload", "SyslogIdentifier"),
        *("StateDirectory", "RuntimeDirectory", "CacheDirectory", "Environment"),
    }
    assert all("%i" in line for line in only_there)
    named = {"batchd %i,": "batchd,", "batchd-%i": "batchd", "/%i.toml": "/config.toml"}
    for theirs, ours in named.items():
        instance = [line.replace(theirs, ours) for line in instance]
    assert [line for line in instance if not line.startswith("SyslogIdentifier=")] == service


@analyzed
def test_each_directive_that_stays_open_is_explained(tmp_path: Path) -> None:
    """Whatever systemd itself finds missing stands in the unit, with the reason."""
    listed = analyze("security", "--offline=true", "--json=short", placed(tmp_path)).stdout
    missing = [check["name"] for check in json.loads(listed) if check["set"] is False]
    listing = (UNITS / "batchd.service").read_text().partition("# Left open on purpose")[2]
    explained = [line.partition(" - ")[0] for line in listing.splitlines() if re.search(r" - \S", line)]
    assert len(missing) > 5
    # Two address families share a line, with the directive's name once.
    words = {name: name.removeprefix("RestrictAddressFamilies=") for name in missing}
    assert [name for name, word in words.items() if not any(word in line for line in explained)] == []
