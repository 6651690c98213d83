"""The real daemon as a real process, on a config written for the test.

config = write_config(tmp_path, {"store": {"url": url}, "jobs": {"tick": {"kind": "noop", "schedule": "every 1s"}}})
with Daemon(config) as daemon:
    daemon.wait_for_event("service.ready")
    assert daemon.stop() == 0
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.canary import assert_no_canary
from tests.support.launcher import PLUGIN, PROJECT
from tests.support.processes import RunningProcess, clean_environment, completed
from tests.support.waiting import wait_until

_WITH_PLUGIN = {"PYTHONPATH": f"{PROJECT}{os.pathsep}{PLUGIN}"}

READY = "service.ready"


class Daemon(RunningProcess):
    """`batchd run` on a config; its JSON log lines are `records`."""

    def __init__(
        self,
        config: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        command: str = "run",
        folder: Path | None = None,
        fresh: bool = False,
    ) -> None:
        self._changed = threading.Condition()
        self.records: list[dict[str, Any]] = []
        super().__init__(
            [sys.executable, "-m", "batchd", command, "--config", str(config), *arguments],
            environment={**_WITH_PLUGIN, **(environment or {})},
            folder=folder or config.parent,
            on_line=self._keep,
            fresh=fresh,
        )

    def events(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the log records of that event whose fields have these values."""
        with self._changed:
            return [
                record
                for record in self.records
                if record.get("event") == name and all(record.get(key) == value for key, value in fields.items())
            ]

    def wait_for_event(self, name: str, *, seconds: float = 20, **fields: Any) -> dict[str, Any]:
        """Return the first such record; fails with the output when the daemon ends before, or the time is over."""

        def arrived() -> bool:
            return bool(self.events(name, **fields)) or self.code is not None

        wait_until(arrived, seconds=seconds, what=f"{name} {fields or ''} in:\n{self.output[-8000:]}")
        if self.code is not None:
            self.wait()
        found = self.events(name, **fields)
        if not found:
            raise AssertionError(f"exit code {self.code} without {name}:\n{self.output[-8000:]}")
        return found[0]

    def ready(self, seconds: float = 20) -> None:
        """Wait until the daemon says that it is ready."""
        self.wait_for_event(READY, seconds=seconds)

    def stop(self, number: int = signal.SIGTERM, *, seconds: float = 30) -> int:
        """Send the signal, wait for the end, return the exit code."""
        self.signal(number)
        return self.wait(seconds)

    def _keep(self, line: str) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            return
        if isinstance(record, dict):
            with self._changed:
                self.records.append(record)


def batchd(
    config: Path, *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run one command of the CLI on the config and return what it said; the first argument is the command."""
    done = completed(
        [sys.executable, "-m", "batchd", arguments[0], "--config", str(config), *arguments[1:]],
        environment=clean_environment({**_WITH_PLUGIN, **(environment or {})}),
        folder=config.parent,
        seconds=seconds,
    )
    assert_no_canary(done.stdout + done.stderr, f"batchd {arguments[0]}")
    return done


def write_config(folder: Path, sections: Mapping[str, Any], *, name: str = "config.toml") -> Path:
    """Write the sections as TOML with JSON logs at debug level unless they say otherwise; return the file."""
    full = {"daemon": {"shutdown_grace": "5s", "state": str(folder)}, "log": {"format": "json"}} | dict(sections)
    path = folder / name
    path.write_text("".join(_table((section,), values) for section, values in full.items()))
    return path


def _table(path: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return a table: nested mappings of `jobs`, `databases` and `queues` are tables, deeper ones inline."""
    nested = {key: value for key, value in values.items() if isinstance(value, Mapping) and len(path) == 1}
    plain = {key: value for key, value in values.items() if key not in nested}
    head = f"[{'.'.join(_value(part) for part in path)}]\n"
    lines = "".join(f"{key} = {_value(value)}\n" for key, value in plain.items())
    return head + lines + "".join(_table((*path, key), value) for key, value in nested.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)
