"""Signals at the worst moments."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from batchd.domain.run import RunState
from batchd.errors import ExitCode
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config
from tests.support.launcher import PROJECT
from tests.support.processes import RunningProcess, clean_environment
from tests.support.store_reading import runs_of
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

_UNREAD = """
import sys, threading
from batchd.signals import Signals
from batchd.telemetry.logs import configure_logging, get_logger
signals = Signals()
signals.install()
configure_logging(level="info", log_format="json", secrets=())
log = get_logger()
signals.attach(lambda received: log.info("signal.received", signal=received.name))
print("ready", file=sys.stderr, flush=True)
def storm():
    while True:
        log.info("service.ready", jobs=0)
for _ in range(3):
    threading.Thread(target=storm, daemon=True).start()
threading.Event().wait()
"""

_TALKS = """
def talk(context):
    number = 0
    while True:
        number += 1
        context.log.info("talk", number=number, text="x" * 200)
        if number % 100 == 0:
            context.raise_if_stopping()
"""

_FULL_OF_LINES = """
import sys, threading
from batchd.signals import leave
from batchd.telemetry.line_output import Line, output_to
output = output_to(sys.stdout, str)
with output._writing:  # as if one thread wrote all the time
    lines = [f"{number} {'x' * 1000}\\n" for number in range(400)]
    threads = [threading.Thread(target=output.write, args=(Line(line),)) for line in lines]
    for thread in threads:
        thread.start()
        thread.join()
leave(0, most_seconds=10)
"""

_WITHOUT_THREADS = """
import threading
from batchd.signals import leave
def refuse(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
leave(7, lambda: print("a word"))
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


def test_a_process_that_can_have_no_thread_ends_all_the_same() -> None:
    """Without its last words."""
    with RunningProcess([sys.executable, "-c", _WITHOUT_THREADS]) as process:
        assert process.wait(10) == 7


def test_a_hang_up_does_not_end_the_daemon(tmp_path: Path) -> None:
    """SIGHUP is noted, and the daemon goes on."""
    store = {"url": f"sqlite:///{tmp_path}/batchd.db"}
    config = write_config(tmp_path, {"store": store, "jobs": {"tick": {"kind": "noop"}}})
    with Daemon(config) as daemon:
        daemon.ready()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("signal.received", signal="SIGHUP")
        assert daemon.stop() == ExitCode.OK


def test_a_process_that_ends_waits_for_a_slow_reader_of_its_last_lines() -> None:
    """400 lines in about three seconds; a reader that has stopped reading is waited for a second alone."""
    process = subprocess.Popen([sys.executable, "-c", _FULL_OF_LINES], stdout=subprocess.PIPE, cwd=PROJECT)
    assert process.stdout is not None
    with process, process.stdout:
        said = b""
        while part := os.read(process.stdout.fileno(), 10_000):
            said += part
            time.sleep(0.08)
        assert process.wait(10) == ExitCode.OK
    assert [line.split()[0] for line in said.decode().splitlines()] == [str(number) for number in range(400)]


def test_a_process_that_ends_does_not_wait_for_a_reader_that_stands_still() -> None:
    """More than a pipe takes: it ends within a second or two."""
    process = subprocess.Popen([sys.executable, "-c", _FULL_OF_LINES], stdout=subprocess.PIPE, cwd=PROJECT)
    try:
        assert process.wait(8) == ExitCode.OK
    finally:
        process.kill()
        process.communicate()


def test_a_stop_waits_for_nobody_who_should_read_the_log(tmp_path: Path) -> None:
    """Ten runs that log without end into a full pipe: they are told, given back, and the daemon ends by its grace."""
    (tmp_path / "talking.py").write_text(_TALKS)
    url = f"sqlite:///{tmp_path}/batchd.db"
    talks = {"kind": "python", "target": "talking:talk", "schedule": "every 1s"}
    sections = {
        "daemon": {"state": str(tmp_path), "shutdown_grace": "2s", "import_path": [str(tmp_path)]},
        "store": {"url": url},
        "jobs": {f"talk-{number}": talks for number in range(10)},
    }
    config = write_config(tmp_path, sections)
    command = [sys.executable, "-m", "batchd", "run", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment())
    try:
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        wait_until(lambda: _bytes_in(pipe) > 40_000, seconds=30, what="a full pipe")
        process.send_signal(signal.SIGTERM)
        assert process.wait(7) == ExitCode.OK
    finally:
        process.kill()
        process.communicate()
    with opened(url) as store:
        states = [run.state for number in range(10) for run in runs_of(store, f"talk-{number}")]
    assert states
    assert RunState.RUNNING not in states


def _bytes_in(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_second_signal_ends_a_process_whose_log_nobody_reads() -> None:
    """The line about the first one waits for the reader; the thread that hears signals does not."""
    command = [sys.executable, "-c", _UNREAD]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=PROJECT)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == b"ready\n"
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        wait_until(lambda: _bytes_in(pipe) > 40_000, seconds=30, what="a full pipe")
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        assert process.wait(10) == ExitCode.UNEXPECTED
    finally:
        process.kill()
        process.communicate()
