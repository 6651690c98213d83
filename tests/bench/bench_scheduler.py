"""How late runs begin and what the daemon costs, beside plain APScheduler 3.11 with its SQLAlchemyJobStore.

    python -m tests.bench.bench_scheduler --repeat 3 --databases sqlite,postgresql
    python -m tests.bench.bench_scheduler --repeat 1 --steady-seconds 5 --bursts 200 --many 500     (a short look)

Both run the same load on the same machine and server, one after the other: jobs that do nothing, on 10 threads. Each
figure is the median over the repeats. "late" is from a run's fire time to its start: for batchd as the executing thread
says (`lag_s` of `run.started`), for APScheduler as the job function itself says. batchd records every fire, attempt and
end durably; APScheduler records the next fire time. Trust the ratios.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from sqlalchemy import func, select

from batchd.store.schema import runs
from tests.support.daemon import READY, Daemon, write_config
from tests.support.databases import open_database
from tests.support.postgres import PostgresServer, fresh_database, start_server
from tests.support.processes import RunningProcess
from tests.support.waiting import wait_until

Figures = Mapping[str, float]
_NEVER = "0 0 1 1 *"


@dataclass(frozen=True)
class Ground:
    """Where one measurement runs: a folder and an empty store."""

    folder: Path
    url: str


@dataclass(frozen=True)
class Load:
    """Jobs that fire together at `first`, then every `every` seconds, `rounds` times in all."""

    jobs: int
    every: int
    rounds: int

    @property
    def runs(self) -> int:
        return self.jobs * self.rounds


class Meter:
    """What a process uses: CPU over a span of time, and its memory."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._cpu, self._began = self._spent(), time.monotonic()

    def cpu_seconds(self) -> float:
        return self._spent() - self._cpu

    def cpu_percent(self) -> float:
        return 100 * self.cpu_seconds() / (time.monotonic() - self._began)

    def memory_mb(self) -> float:
        return float(self._process.memory_info().rss) / 1e6

    def _spent(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


class _Unread(Daemon):
    """Its lines are taken apart at the end: while it works, that would be a tenth of what is measured."""

    def _keep(self, line: str) -> None:
        if READY in line:
            super()._keep(line)


def batchd_load(ground: Ground, load: Load, lead: float) -> Figures:
    """Run the load under batchd; `lead` is how many seconds it gets to start before the first fire."""
    first = datetime.fromtimestamp(math.ceil(time.time() + lead), UTC)
    schedule = "every 1s" if load.every == 1 else f"{first.second} {first.minute} {first.hour} * * *"
    config = _config(ground, {"schedule": schedule, "overlap": "allow"}, load.jobs)
    store = open_database(ground.url)
    until = first + timedelta(seconds=load.every * load.rounds)
    mine = (runs.c.scheduled_for >= first) & (runs.c.scheduled_for < until)

    def done() -> bool:
        with store.reading() as connection:
            count = select(func.count()).select_from(runs).where(mine, runs.c.finished_at.is_not(None))
            return int(connection.execute(count).scalar_one()) >= load.runs

    with _Unread(config) as daemon:
        daemon.ready(60 + lead)
        if datetime.now(UTC) >= first:
            raise SystemExit(f"batchd was not ready before the first fire; give --lead more than {lead}")
        meter = Meter(daemon.pid)
        _wait_until_clock((until if load.rounds > 1 else first).timestamp())
        # Seldom: each look counts all runs, on a processor that the load could use.
        wait_until(done, seconds=120, what=f"{load.runs} runs", every=0.25)
        cpu, memory = meter.cpu_seconds(), meter.memory_mb()
        daemon.stop()
    store.close()
    told = (json.loads(line) for line in daemon.output.splitlines() if '"run.started"' in line)
    begun = [line for line in told if line["scheduled_for"] is not None]
    # As the thread that executes the run saw it: the row has the moment of the claim, a little earlier.
    late = [line["lag_s"] for line in begun if first <= datetime.fromisoformat(line["scheduled_for"]) < until]
    return _late(late) | {"CPU s": cpu, "memory MB": memory}


def stock_load(ground: Ground, load: Load, lead: float) -> Figures:
    """Run the load under plain APScheduler."""
    lead += load.jobs * 0.006
    first = math.ceil(time.time() + lead)
    until = first + load.every * load.rounds if load.rounds > 1 else first + 120
    with _stock(ground, load, first=first, until=until, count=load.runs if load.rounds == 1 else None) as stock:
        _wait_for(stock, READY, lead + 10)
        if time.time() >= first:
            raise SystemExit(f"APScheduler was not ready before the first fire; give --lead more than {lead}")
        meter = Meter(stock.pid)
        wait_until(lambda: '"measured"' in stock.output, seconds=until - time.time() + 60, what="measured")
        cpu, memory = meter.cpu_seconds(), meter.memory_mb()
        stock.wait()
    return _late(json.loads(_line(stock, "measured"))["late"]) | {"CPU s": cpu, "memory MB": memory}


def batchd_idle(ground: Ground, jobs: int, seconds: float) -> Figures:
    """Return what a daemon costs in which nothing is due, and how long it takes to be ready: at first, and again."""
    config = _config(ground, {"schedule": _NEVER}, jobs)
    ready = []
    for _ in range(2):
        began = time.monotonic()
        with Daemon(config) as daemon:
            daemon.ready(120)
            ready.append(time.monotonic() - began)
            time.sleep(1)
            meter = Meter(daemon.pid)
            time.sleep(seconds)
            cpu, memory = meter.cpu_percent(), meter.memory_mb()
            daemon.stop()
    return {"first ready s": ready[0], "ready s": ready[1], "idle CPU %": cpu, "idle memory MB": memory}


def stock_idle(ground: Ground, jobs: int, seconds: float) -> Figures:
    """Return the same of plain APScheduler."""
    ready = []
    for _ in range(2):
        began = time.monotonic()
        until = time.time() + 86_400
        with _stock(ground, Load(jobs, 86_400, 1), first=until, until=until, count=None) as stock:
            _wait_for(stock, READY, 120)
            ready.append(time.monotonic() - began)
            time.sleep(1)
            meter = Meter(stock.pid)
            time.sleep(seconds)
            cpu, memory = meter.cpu_percent(), meter.memory_mb()
    return {"first ready s": ready[0], "ready s": ready[1], "idle CPU %": cpu, "idle memory MB": memory}


def main() -> int:
    """Measure and print a table."""
    given = _arguments()
    print(f"{'database':<14}{'load':<26}{'figure':<16}{'batchd':>10}{'APScheduler':>13}{'ratio':>8}", flush=True)
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchd-bench")))
        base.chmod(0o755)
        for dialect in given.databases.split(","):
            server = None
            if dialect != "sqlite":
                (base / dialect).mkdir()
                version = "18" if dialect.endswith("18") else "older"
                server = stack.enter_context(start_server(base / dialect, version, synced=True))
            _measure(dialect, server, given)
    return 0


def _measure(dialect: str, server: PostgresServer | None, given: argparse.Namespace) -> None:
    lead = given.lead
    loads = {f"{given.steady} each second": Load(given.steady, 1, given.steady_seconds)}
    loads |= {f"{int(count):,} in one second": Load(int(count), 86_400, 1) for count in given.bursts.split(",")}
    for name, load in loads.items():
        ours, theirs = [], []
        for _ in range(given.repeat):
            with _ground(server) as ground:
                ours.append(batchd_load(ground, load, lead + load.jobs * 0.001))
            with _ground(server) as ground:
                theirs.append(stock_load(ground, load, lead))
        _print(dialect, name, ours, theirs)
    for jobs in (20, given.many):
        ours, theirs = [], []
        for _ in range(given.repeat):
            with _ground(server) as ground:
                ours.append(batchd_idle(ground, jobs, given.idle_seconds))
            with _ground(server) as ground:
                theirs.append(stock_idle(ground, jobs, given.idle_seconds))
        _print(dialect, f"{jobs:,} schedules, none due", ours, theirs)


def _print(dialect: str, load: str, ours: Sequence[Figures], theirs: Sequence[Figures]) -> None:
    for figure in ours[0]:
        mine = statistics.median(one[figure] for one in ours)
        other = statistics.median(one[figure] for one in theirs)
        ratio = f"{mine / other:8.2f}" if other else "       -"
        print(f"{dialect:<14}{load:<26}{figure:<16}{mine:>10.2f}{other:>13.2f}{ratio}", flush=True)


def _late(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "runs": float(len(ordered)),
        "late p50 ms": 1000 * ordered[len(ordered) // 2],
        "late p99 ms": 1000 * ordered[min(len(ordered) - 1, math.ceil(len(ordered) * 0.99) - 1)],
        "late max ms": 1000 * ordered[-1],
    }


def _config(ground: Ground, job: Mapping[str, object], jobs: int) -> Path:
    return write_config(
        ground.folder,
        {
            "store": {"url": ground.url},
            "log": {"format": "json", "level": "info"},
            "jobs": {f"job-{number}": {"kind": "noop", **job} for number in range(jobs)},
        },
    )


def _stock(ground: Ground, load: Load, *, first: float, until: float, count: int | None) -> RunningProcess:
    # In SQLAlchemy 2.1 both spellings of PostgreSQL mean psycopg 3, as they do for batchd.
    options = {"store": ground.url, "jobs": load.jobs, "every": load.every, "first": first, "until": until}
    if count is not None:
        options["runs"] = count
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return RunningProcess([sys.executable, "-m", "tests.bench.stock_apscheduler", *words])


@contextmanager
def _ground(server: PostgresServer | None) -> Iterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="batchd-bench") as name, ExitStack() as stack:
        url = f"sqlite:///{name}/store.db" if server is None else stack.enter_context(fresh_database(server))
        yield Ground(Path(name), url)


def _wait_for(process: RunningProcess, event: str, seconds: float) -> None:
    wait_until(
        lambda: f'"{event}"' in process.output or process.code is not None,
        seconds=seconds,
        what=f"{event} in {process.output}",
    )
    if process.code is not None:
        raise SystemExit(process.output)


def _line(process: RunningProcess, event: str) -> str:
    return next(line for line in process.output.splitlines() if f'"{event}"' in line)


def _wait_until_clock(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", default="sqlite,postgresql", help="of sqlite, postgresql, postgresql-18")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each measurement (default 3)")
    parser.add_argument("--steady", type=int, default=100, help="schedules that fire each second (default 100)")
    parser.add_argument("--steady-seconds", type=int, default=30, help="for so long (default 30)")
    parser.add_argument("--bursts", default="1000,10000", help="schedules due in the same second")
    parser.add_argument("--many", type=int, default=10_000, help="schedules for the idle measurement (default 10000)")
    parser.add_argument("--idle-seconds", type=float, default=20, help="length of the idle measurement (default 20)")
    parser.add_argument("--lead", type=float, default=4, help="seconds to start before the first fire (default 4)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
