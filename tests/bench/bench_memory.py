"""What an idle daemon takes of memory, with the HTTP surface and without: all its processes, shared pages once (PSS).

    /usr/bin/python3 tests/bench/bench_memory.py --batchd .venv/bin/batchd --store postgresql://…

Imports nothing but the standard library, to be run by another Python than the daemon's: a library's pages that others
have mapped too would count in part only. "own" leaves them out; it is the same whoever else runs here. The daemon has
20 jobs, none of which is due, and starts twice: the store's tables are there when it is measured.
"""

from __future__ import annotations

import argparse
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

_JOB = '[jobs.job-{}]\nkind = "health_check"\nschedule = "0 0 1 1 *"\n'
_READY = '"service.ready"'
_SETTLE_SECONDS = 3
"""What a start, or an answer, has left is given back by then: it is the idle daemon that is measured."""


def main() -> int:
    """Measure and print a table."""
    given = _arguments()
    print(f"{'':<32}{'own MB':>10}{'PSS MB':>10}{'ready s':>10}")
    for name, has_http, asked in (
        ("without HTTP", False, ()),
        ("with HTTP, nobody asks", True, ()),
        ("with HTTP, watched", True, ("/healthz", "/readyz")),
    ):
        found = [measured(given.batchd, given.store, has_http=has_http, asked=asked) for _ in range(given.repeat)]
        figures = [statistics.median(one[key] for one in found) for key in ("own", "pss", "ready")]
        print(f"{name:<32}{figures[0]:>10.1f}{figures[1]:>10.1f}{figures[2]:>10.2f}", flush=True)
    return 0


def measured(batchd: str, store: str | None, *, has_http: bool, asked: tuple[str, ...]) -> Mapping[str, float]:
    """Return the megabytes of 10^6 bytes that the daemon's processes have, and the seconds of its second start."""
    with tempfile.TemporaryDirectory(prefix="batchd-bench") as folder:
        config = Path(folder) / "config.toml"
        port = _free_port()
        http = f'[http]\nlisten = "127.0.0.1:{port}"\n' if has_http else ""
        url = store or f"sqlite:///{folder}/batchd.db"
        jobs = "".join(_JOB.format(number) for number in range(20))
        config.write_text(f'[store]\nurl = "{url}"\n[databases.app]\nurl = "{url}"\n{http}{jobs}')
        for is_last in (False, True):
            began = time.monotonic()
            daemon = subprocess.Popen([batchd, "run", "--config", config], stdout=subprocess.PIPE, text=True)
            assert daemon.stdout
            while _READY not in (line := daemon.stdout.readline()):
                if not line:
                    raise SystemExit("the daemon did not become ready")
            ready = time.monotonic() - began
            if is_last:
                time.sleep(_SETTLE_SECONDS)
                for path in asked * 5:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read()
                time.sleep(_SETTLE_SECONDS)
                used = _used(daemon.pid)
            daemon.terminate()
            daemon.communicate()
        return {**used, "ready": ready}


def _used(pid: int) -> Mapping[str, float]:
    children = " ".join(file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")).split()
    rollups = [Path(f"/proc/{each}/smaps_rollup").read_text() for each in (pid, *children)]
    return {
        "own": sum(_megabytes(each, "Pss_Anon") for each in rollups),
        "pss": sum(_megabytes(each, "Pss") for each in rollups),
    }


def _megabytes(rollup: str, field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found
    return int(found[1]) * 1024 / 1e6


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batchd", required=True, help="the program to measure")
    parser.add_argument("--store", help="the URL of an empty database (default: a SQLite file)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each measurement (default 3)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
