"""promtool, a part of Prometheus: `.ci/setup dev` puts it beside the tests' interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.needs import require


def complaints(*arguments: str, given: str = "") -> str:
    """Return what `promtool check …` complains of, empty when of nothing; where there is none, CI fails."""
    found = shutil.which("promtool", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    require(None if found else "there is no promtool here; .ci/setup dev fetches it")
    assert found
    done = subprocess.run([found, "check", *arguments], input=given, capture_output=True, text=True, check=False)
    said = done.stderr.strip()
    return said or (done.stdout.strip() if done.returncode else "")
