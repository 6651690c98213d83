"""What listeners cost: processor time and memory of a real HTTP server with many event streams, and of its daemon.

    python -m tests.bench.bench_listeners --listeners 500 --seconds 20

Three phases on one daemon: nobody listens, all listen while nothing happens, all listen while ten jobs run every second
(about forty events a second, each to everybody). Processor time is a share of one core.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchd.domain.access import Role
from batchd.store import control, tokens
from tests.bench.bench_live import under_load
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config

_JOBS = 10
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Sample:
    """Of one process: seconds of processor time so far, and its memory in MB, of which shared pages count in part."""

    cpu: float
    memory: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20, help="of each of the three phases")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), given)


def measure(folder: Path, given: argparse.Namespace) -> None:
    """Run the phases and tell."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    url = f"sqlite:///{folder}/batchd.db"
    names = [f"every-second-{n}" for n in range(_JOBS)]
    sections: dict[str, Any] = {
        "daemon": {"state": str(folder)},
        "http": {"listen": f"127.0.0.1:{port}", "rate": "100000/1s"},
        "jobs": {name: {"kind": "noop", "schedule": "every 1s"} for name in names},
    }
    with Daemon(write_config(folder, sections)) as daemon, opened(url) as store:
        daemon.ready(120)
        token = tokens.create(store, "bench", Role.OPERATOR).text
        _pause(store, names, paused=True)
        time.sleep(_SETTLE_SECONDS)
        pids = {"daemon": daemon.pid, "server": _server_of(daemon.pid)}
        _told("nobody listens", pids, given.seconds)
        for what, is_paused in (("nothing happens", True), ("ten runs a second", False)):
            _pause(store, names, paused=is_paused)
            load = argparse.Namespace(listeners=given.listeners, rate=20, seconds=given.seconds + _SETTLE_SECONDS * 2)
            said: list[dict[str, Any]] = []
            loading = threading.Thread(target=lambda: said.append(under_load(port, token, load)))  # noqa: B023
            loading.start()
            time.sleep(_SETTLE_SECONDS * 2)  # until all have come
            _told(f"{given.listeners} listen, {what}", pids, given.seconds)
            loading.join()
            print(f"    {said[0]['listeners']} stayed, {said[0]['events']} events heard")


def _told(phase: str, pids: dict[str, int], seconds: float) -> None:
    before = {name: _sample(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    after = {name: _sample(pid) for name, pid in pids.items()}
    parts = [
        f"{name} {(after[name].cpu - before[name].cpu) / seconds * 100:5.1f} % {after[name].memory:6.1f} MB"
        for name in pids
    ]
    print(f"{phase:36} {'   '.join(parts)}", flush=True)


def _sample(pid: int) -> Sample:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = int(rollup.partition("\nPss:")[2].split()[0])
    return Sample(ticks / os.sysconf("SC_CLK_TCK"), kilobytes / 1024)


def _server_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return int(next(text for file in children if (text := file.read_text().strip())).split()[0])


def _pause(store: Any, names: list[str], *, paused: bool) -> None:
    for name in names:
        (control.pause if paused else control.resume)(store, name)


if __name__ == "__main__":
    main()
