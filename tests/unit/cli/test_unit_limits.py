"""A unit that would kill a stop which the config still allows is warned of."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from batchd.cli import unit_limits
from batchd.config.load import load_config

_SHOWN = """Id=batchd.service
TimeoutStopUSec={limit}
ExecStart={{ path=/opt/b ; argv[]=/opt/b/batchd run --config {config} ; ignore_errors=no ; pid=0 }}

Id=batchd@other.service
TimeoutStopUSec=1s
ExecStart={{ path=/opt/b ; argv[]=/opt/b/batchd run --config /etc/other.toml ; ignore_errors=no ; pid=0 }}
"""


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("1min 30s", timedelta(seconds=90)),
        ("1h 2min 500ms", timedelta(hours=1, minutes=2, seconds=0.5)),
        ("infinity", None),
        ("", None),
    ],
)
def test_a_time_span_is_read_as_systemctl_prints_it(text: str, span: timedelta | None) -> None:
    """Infinity is no limit."""
    assert unit_limits.time_span(text) == span


@pytest.mark.parametrize(("limit", "warns"), [("1min 10s", False), ("1min 9s", True), ("infinity", False)])
def test_the_unit_that_runs_the_config_must_leave_the_grace_and_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, warns: bool
) -> None:
    """Another config's unit does not matter."""
    config = tmp_path / "config.toml"
    config.write_text('[daemon]\nshutdown_grace = "60s"\n')
    shown = tmp_path / "shown"
    shown.write_text(_SHOWN.format(limit=limit, config=config))
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"#!/bin/sh\nexec cat {shown}\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(unit_limits, "_BOOTED", tmp_path)
    found = unit_limits.complaints(load_config(config, {}))
    assert len(found) == warns
    assert all("batchd.service has TimeoutStopSec=69" in said and "70 or more" in said for said in found)
