"""Work in a forked process: whatever becomes of either process, nothing is left over and nothing hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchd.config.load import load_config
from batchd.service.first_work import first_work
from tests.support.daemon import write_config
from tests.support.processes import clean_environment

_LEAVES_IN_THE_MIDDLE = """
import os, pathlib, sys, threading, time
from batchd.fork import Errand
begun = pathlib.Path(sys.argv[1])
errand = Errand(lambda: (begun.touch(), time.sleep(40)))
threading.Thread(target=errand.done, daemon=True).start()
while not begun.exists():
    time.sleep(0.01)
os._exit(0)
"""

_CHILDREN_IGNORED = """
import signal
from batchd.fork import Errand
from batchd.signals import process_signals
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print(Errand(lambda: None).done())
process_signals()
print(Errand(lambda: None).done())
"""

_CTRL_C_MEANWHILE = """
import os, signal
from batchd.fork import Errand
from batchd.signals import process_signals
signals = process_signals()
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGINT))
errand = Errand(lambda: None)
heard = []
signals.attach(heard.append)
print(errand.done(), heard, signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def _said_by(program: str, *arguments: str) -> str:
    """Return what it wrote, when all processes that could write more are gone."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, check=True, timeout=20
    ).stdout


def test_an_errand_ends_with_its_parent_in_the_middle_of_its_work(tmp_path: Path) -> None:
    """A store must not be migrated by what a stopped daemon has left."""
    assert _said_by(_LEAVES_IN_THE_MIDDLE, str(tmp_path / "begun")) == ""


def test_an_errand_whose_end_the_kernel_does_not_tell() -> None:
    """Where SIGCHLD is ignored it counts as not done; a daemon does not inherit that from whoever started it."""
    assert _said_by(_CHILDREN_IGNORED).split() == ["False", "True"]


def test_a_signal_that_reaches_a_fork_at_once_is_not_heard_by_its_parent() -> None:
    """Ctrl-C goes to both, and must count once."""
    assert _said_by(_CTRL_C_MEANWHILE).strip() == "True [] set()"


def test_a_machine_that_has_no_process_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon does its first work itself."""

    def refuse() -> int:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr("batchd.service.first_work.may_fork", lambda: True)
    monkeypatch.setattr(os, "fork", refuse)
    assert first_work(load_config(write_config(tmp_path, {"jobs": {}}), {})) is None
