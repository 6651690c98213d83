"""`batchd install --systemd` on a folder in place of the machine: what is written, kept, renewed and removed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from batchd.cli import installation
from batchd.cli.installation import Action, apply_installation, apply_removal, steps_to_install, steps_to_uninstall
from batchd.cli.main import main
from batchd.errors import CannotCreate, ExitCode

PROGRAM = Path("/srv/venv/bin/batchd")
UNIT = "etc/systemd/system/batchd.service"
CONFIG = "etc/batchd/config.toml"
BACKOFF = "etc/systemd/system/batchd.service.d/10-backoff.conf"


@pytest.fixture(autouse=True)
def nobody_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no group `batchd` here to give files to."""
    monkeypatch.setattr(installation, "_give_to_group", lambda _path: None)


def install(root: Path, *, program: Path = PROGRAM, version: int = 257) -> dict[str, Action]:
    """Install below the folder; return what was done with each file."""
    steps = steps_to_install(root, program, version)
    apply_installation(steps, root=root, run=lambda *_, **__: None)
    return {str(step.file.path.relative_to(root)): step.action for step in steps}


def test_everything_is_written_and_the_second_time_nothing(tmp_path: Path) -> None:
    """The units start the program that was installed; the config and its folder are no business of others."""
    assert set(install(tmp_path).values()) == {Action.WRITE}
    unit = (tmp_path / UNIT).read_text()
    assert f"\nExecStart={PROGRAM} run --config /etc/batchd/config.toml\n" in unit
    assert "/opt/batchd" not in unit
    assert stat.S_IMODE((tmp_path / CONFIG).stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / CONFIG).parent.stat().st_mode) == 0o750
    assert set(install(tmp_path).values()) == {Action.LEAVE}


def test_a_config_is_never_overwritten(tmp_path: Path) -> None:
    """Whatever is in it; nor is its mode changed."""
    install(tmp_path)
    (tmp_path / CONFIG).write_text("mine")
    (tmp_path / CONFIG).chmod(0o600)
    assert install(tmp_path)[CONFIG] is Action.LEAVE
    assert (tmp_path / CONFIG).read_text() == "mine"
    assert stat.S_IMODE((tmp_path / CONFIG).stat().st_mode) == 0o600


def test_a_unit_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """As long as it is as that version wrote it."""
    install(tmp_path)
    done = install(tmp_path, program=Path("/srv/newer/bin/batchd"))
    assert done[UNIT] is Action.REPLACE
    assert done[CONFIG] is Action.LEAVE
    assert "ExecStart=/srv/newer/bin/batchd run" in (tmp_path / UNIT).read_text()


@pytest.mark.parametrize("is_marked", [True, False], ids=["edited", "of somebody else"])
def test_a_unit_that_somebody_has_changed_is_kept(tmp_path: Path, *, is_marked: bool) -> None:
    """By an installation and by a removal, whether they changed ours or wrote their own."""
    install(tmp_path)
    ours = (tmp_path / UNIT).read_text() if is_marked else ""
    (tmp_path / UNIT).write_text(ours + "Nice=5\n")
    done = install(tmp_path)
    assert done[UNIT] is Action.KEEP
    assert (tmp_path / UNIT).read_text() == ours + "Nice=5\n"
    removal = steps_to_uninstall(tmp_path, PROGRAM, 257)
    apply_removal(removal, root=tmp_path, run=lambda *_, **__: None)
    assert [step.file.path for step in removal if step.action is Action.KEEP] == [tmp_path / UNIT]
    assert (tmp_path / UNIT).exists()


def test_a_removal_leaves_config_and_nothing_else(tmp_path: Path) -> None:
    """Units, drop-ins and the user's entry go, after every instance was stopped; a second removal finds nothing."""
    install(tmp_path)
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "batchd@shop.service").symlink_to(tmp_path / "etc/systemd/system/batchd@.service")
    said: list[tuple[str, ...]] = []
    steps = steps_to_uninstall(tmp_path, PROGRAM, 257)
    apply_removal(steps, root=tmp_path, run=lambda *command, **_: said.append(command))
    assert ("systemctl", "disable", "--now", "batchd@shop.service") in said
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [CONFIG]
    assert steps_to_uninstall(tmp_path, PROGRAM, 257) == []


def test_an_older_systemd_gets_no_words_that_it_does_not_know(tmp_path: Path) -> None:
    """RestartSteps= came with 254."""
    install(tmp_path, version=253)
    assert not (tmp_path / BACKOFF).exists()
    install(tmp_path, version=254)
    assert "RestartSteps=" in (tmp_path / BACKOFF).read_text()


def test_a_program_that_a_service_cannot_reach_is_refused(tmp_path: Path) -> None:
    """With where to install it instead."""
    program = tmp_path / "batchd"
    program.touch()
    with pytest.raises(CannotCreate, match="could not start") as caught:
        installation.require_reachable(program)
    assert "/opt/batchd" in str(caught.value.hint)


def test_a_program_of_root_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A venv made under umask 077 starts for root and for nobody else."""
    monkeypatch.setattr(installation, "_HIDDEN", ())
    program = tmp_path / "batchd"
    program.touch(mode=0o700)
    with pytest.raises(CannotCreate, match="may be used by its owner only"):
        installation.require_reachable(program)


def test_install_asks_for_what(capsys: pytest.CaptureFixture[str]) -> None:
    """There may be other supervisors one day, so `install` alone is not enough."""
    assert main(["install"]) == ExitCode.USAGE
    assert "--systemd" in capsys.readouterr().err
