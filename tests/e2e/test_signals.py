"""Signals at the worst moments."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from batchd.errors import ExitCode
from tests.support.daemon import Daemon, write_config
from tests.support.processes import RunningProcess
from tests.support.waiting import wait_until

_BUSY = """
from batchd.signals import Signals, leave
from batchd.telemetry.logs import configure_logging, get_logger
stop = Signals()
stop.install()
configure_logging(level="info", log_format="json", secrets=())
log = get_logger()
stop.attach(lambda received: log.info("signal.received", signal=received.name))
while not stop.asked.is_set():
    log.info("service.ready", jobs=0)  # the main thread is nearly always inside the log, or inside the event's lock
    stop.asked.wait(0.0001)
leave(0)
"""

_STUCK = """
import ctypes
from batchd.signals import Signals
signals = Signals()
signals.install()
signals.attach(lambda received: print("heard", received.name, flush=True))
mutex = ctypes.create_string_buffer(64)
print("ready", flush=True)
for _ in range(2):
    ctypes.CDLL(None).pthread_mutex_lock(mutex)  # the second never returns, and no Python handler can run
"""


@pytest.mark.parametrize("round_", range(5))
def test_a_signal_in_the_middle_of_a_log_line_is_heard(round_: int) -> None:
    """Wherever the main thread is interrupted, the stop comes through."""
    with RunningProcess([sys.executable, "-c", _BUSY]) as process:
        wait_until(lambda: process.output.count("service.ready") > 20 + round_, seconds=20, what="lines")
        process.signal(signal.SIGTERM)
        assert process.wait(10) == ExitCode.OK


def test_a_second_signal_ends_a_process_whose_main_thread_hangs() -> None:
    """The main thread is stuck in a C library; two signals end the process all the same."""
    with RunningProcess([sys.executable, "-c", _STUCK]) as process:
        wait_until(lambda: "ready" in process.output, seconds=20, what="the start")
        process.signal(signal.SIGTERM)
        wait_until(lambda: "heard SIGTERM" in process.output, what="the first signal")
        process.signal(signal.SIGTERM)
        assert process.wait(10) == ExitCode.UNEXPECTED


def test_a_hang_up_does_not_end_the_daemon(tmp_path: Path) -> None:
    """SIGHUP is noted, and the daemon goes on."""
    store = {"url": f"sqlite:///{tmp_path}/batchd.db"}
    config = write_config(tmp_path, {"store": store, "jobs": {"tick": {"kind": "noop"}}})
    with Daemon(config) as daemon:
        daemon.ready()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("signal.received", signal="SIGHUP")
        assert daemon.stop() == ExitCode.OK
