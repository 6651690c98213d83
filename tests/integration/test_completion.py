"""The completion scripts, sourced by the real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.needs import require
from tests.support.processes import clean_environment

_CONFIG = (
    '[databases.app]\nurl = "sqlite:///app.db"\n[jobs.nightly]\nkind = "cleanup"\ndatabase = "app"\ntable = "t"\n'
    'column = "c"\nexpired = true\n[jobs.nobody]\nkind = "health_check"\n'
)
_ASK = {
    "bash": "source script; COMP_WORDS=({words}); COMP_CWORD={last}; _batchd_completion batchd;"
    ' echo "${{COMPREPLY[@]}}"',
    "fish": 'source script; complete -C "{line}" | string split -f1 \\t',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config and a command `batchd`."""
    (tmp_path / "config.toml").write_text(_CONFIG)
    command = tmp_path / "batchd"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchd "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("shell", sorted(_ASK))
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["ru"], {"run", "runs"}),
        (["trigger", "n"], {"nightly", "nobody"}),
        (["runs", "--job", "ni"], {"nightly"}),
        (["kinds", "cl"], {"cleanup"}),
        (["trigger", "nightly", "--param", "older"], {"older_than="}),
    ],
)
def test_the_shell_completes(folder: Path, shell: str, line: list[str], expected: set[str]) -> None:
    """Commands, the config's jobs wherever one is wanted, kinds, and the params of the job on the line."""
    require(None if shutil.which(shell) else f"{shell} is not installed")
    words = ["batchd", *line]
    environment = clean_environment({"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)})
    script = subprocess.run(
        ["batchd", "completion", shell], env=environment, capture_output=True, text=True, check=True
    )
    (folder / "script").write_text(script.stdout)
    asked = _ASK[shell].format(words=" ".join(words), last=len(words) - 1, line=" ".join(words))
    done = subprocess.run(
        [shell, "-c", asked], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stderr, set(done.stdout.split())) == ("", expected)
