"""Does a load on the HTTP surface delay a fire? Lateness of a real daemon's schedules without and under it, in one run.

    python -m tests.bench.bench_live --listeners 200 --rate 200 --seconds 20 --most 1.5

Ten jobs fire every second. The phases alternate (quiet, load, quiet, load, quiet), so that what else the machine does
falls on both. Lateness is how long after its fire time a run was queued, and how long after it was started. With
`--most` it exits with 1 when the p99 of the former under load is more than so many times the quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from batchd.domain.access import Role
from batchd.store import tokens
from batchd.store.schema import runs
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config
from tests.support.postgres import fresh_database, start_server

_JOBS = 10
_SETTLE_SECONDS = 3.0
_LOUD_ENOUGH = 0.4
"""Of the wanted rate; a server that is given more than it can answer is under more load, not under less."""


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=20, help="of each of the five phases")
    parser.add_argument("--dialect", choices=["sqlite", "postgresql"], default="postgresql")
    parser.add_argument("--most", type=float, help="fail when load makes the p99 more than so many times as late")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.dialect == "sqlite":
            return measure(Path(folder), f"sqlite:///{folder}/batchd.db", given)
        with start_server(Path(folder) / "postgres", "18") as server, fresh_database(server) as url:
            return measure(Path(folder), url, given)


def measure(folder: Path, url: str, given: argparse.Namespace) -> int:
    """Run the phases on a store and tell; return the exit code."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    jobs = {f"every-second-{n}": {"kind": "noop", "schedule": "* * * * * *", "catch_up": "all"} for n in range(_JOBS)}
    sections: dict[str, Any] = {
        "daemon": {"state": str(folder)},
        "store": {"url": url},
        "http": {"listen": f"127.0.0.1:{port}", "rate": "100000/1s"},
        "jobs": jobs,
    }
    with Daemon(write_config(folder, sections)) as daemon, opened(url) as store:
        daemon.ready()
        token = tokens.create(store, "bench", Role.OPERATOR).text
        time.sleep(_SETTLE_SECONDS)
        phases = []
        loads = []
        for number in range(5):
            began = datetime.now(UTC) + timedelta(seconds=1)
            if number % 2:
                loads.append(under_load(port, token, given))
            else:
                time.sleep(given.seconds)
            phases.append((number % 2 == 1, began, datetime.now(UTC) - timedelta(seconds=1)))
        daemon.stop()
        with store.reading() as connection:
            found = connection.execute(
                select(runs.c.scheduled_for, runs.c.created_at, runs.c.started_at, runs.c.state)
            ).all()
    quiet, loud = (
        [row for is_loud, begin, end in phases if is_loud is wanted for row in found if begin < row[0] < end]
        for wanted in (False, True)
    )
    return tell(quiet, loud, loads, given)


def under_load(port: int, token: str, given: argparse.Namespace) -> dict[str, Any]:
    """Put the load on; it comes from elsewhere as a rule, so it is to take as little from this machine as it can."""
    command = ["nice", "-n", "19", sys.executable, "-m", "tests.bench.live_load", "--port", str(port)]
    command += ["--listeners", str(given.listeners), "--rate", str(given.rate), "--seconds", str(given.seconds)]
    done = subprocess.run(command, env={**os.environ, "TOKEN": token}, stdout=subprocess.PIPE, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def tell(quiet: list[Any], loud: list[Any], loads: list[dict[str, Any]], given: argparse.Namespace) -> int:
    """Print the figures; return 1 when the load was no load, a run is missing, or fires came too late."""
    for load in loads:
        print("load", json.dumps(load))
    p99 = {}
    for name, rows in (("quiet", quiet), ("load", loud)):
        for what, column in (("queued", 1), ("started", 2)):
            late = sorted((row[column] - row[0]).total_seconds() * 1000 for row in rows if row[column] is not None)
            at = {share: late[min(len(late) - 1, int(len(late) * share / 100))] for share in (50, 95, 99)}
            p99[name, what] = at[99]
            told = "  ".join(f"p{share} {value:7.1f} ms" for share, value in at.items())
            print(f"{name:6} {what:8} {told}  max {late[-1]:7.1f} ms  of {len(late)} fires")
    ratio = p99["load", "queued"] / p99["quiet", "queued"]
    print(f"p99 of lateness under load is {ratio:.2f} times the quiet one")
    is_load = all(
        load["listeners"] == given.listeners
        and load["requests_per_second"] >= given.rate * _LOUD_ENOUGH
        and set(load["statuses"]) == {"200"}
        for load in loads
    )
    if not is_load:
        print("the load was not what it should have been")
    if given.most is not None and (ratio > given.most or not is_load):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
