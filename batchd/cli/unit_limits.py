"""Whether the systemd unit that runs a config leaves a stop the time that the config gives it."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta
from pathlib import Path

from batchd.config.load import Config

_BOOTED = Path("/run/systemd/system")
_USUAL_CONFIG = "/etc/batchd/config.toml"
_AFTER_GRACE = timedelta(seconds=10)
_WITHIN_SECONDS = 5
_SIZES = {"y": 31_557_600, "month": 2_629_800, "w": 604_800, "d": 86_400, "h": 3_600, "min": 60, "s": 1, "ms": 0.001}
_PART = re.compile(r"(\d+)(y|month|w|d|h|min|ms|s)\b")


def complaints(config: Config) -> list[str]:
    """Return a warning for each unit that would kill a stop which the config's `shutdown_grace` still allows.

    Empty where no systemd runs, or no unit of it runs this config.
    """
    if not _BOOTED.is_dir():
        return []
    grace = config.settings.daemon.shutdown_grace
    found = []
    for unit in _units():
        limit = time_span(unit.get("TimeoutStopUSec", ""))
        if _runs(unit, config) and limit is not None and limit < grace + _AFTER_GRACE:
            found.append(
                f"{unit.get('Id')} has TimeoutStopSec={limit.total_seconds():g}, and [daemon] shutdown_grace is "
                f"{grace.total_seconds():g} s: systemd may kill jobs that still have time; set TimeoutStopSec= to "
                f"{(grace + _AFTER_GRACE).total_seconds():g} or more"
            )
    return found


def time_span(text: str) -> timedelta | None:
    """Return what systemctl prints as a time span ("1min 30s"); None for infinity and what is no time span."""
    parts = _PART.findall(text)
    return timedelta(seconds=sum(int(count) * _SIZES[unit] for count, unit in parts)) if parts else None


def _units() -> list[dict[str, str]]:
    """Return the properties of batchd's units that systemd knows."""
    asked = ["systemctl", "show", "-p", "Id,TimeoutStopUSec,ExecStart", "batchd.service", "batchd@*.service"]
    try:
        said = subprocess.run(  # noqa: S603 (fixed words)
            asked, capture_output=True, text=True, check=False, timeout=_WITHIN_SECONDS
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    blocks = said.strip().split("\n\n")
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]


def _runs(unit: dict[str, str], config: Config) -> bool:
    """Return whether the unit runs this config: it names it, or names none and this is the usual one."""
    start = unit.get("ExecStart", "")
    words = start.partition("argv[]=")[2].partition(" ;")[0].split()
    if "run" not in words:
        return False
    path = config.path.absolute()
    named = [word.removeprefix("--config=") for word in words if word.startswith(("/", "--config="))][1:]
    return any(Path(word) == path for word in named) if named else str(path) == _USUAL_CONFIG
