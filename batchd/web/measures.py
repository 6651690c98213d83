"""What /metrics shows, from its three sources: the store, what the daemon has counted, the server itself.

Labels are names from the config and words from closed lists, so that their number is bounded.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from batchd import __version__
from batchd.store.gauges import Gauges
from batchd.web.counts import Counts
from batchd.web.exposition import Family, one
from batchd.web.health import Check
from batchd.web.pulse import Beat


@dataclass(frozen=True, slots=True)
class Sources:
    """What one scrape knows; None for what did not answer. `now` is Unix time, `monotonic` the clock of the beat."""

    store_name: str
    gauges: Gauges | None
    counted: Mapping[str, Any] | None
    beat: Beat
    checks: tuple[Check, ...]
    counts: Counts
    intervals: Mapping[str, float]
    daemon_pid: int
    now: float
    monotonic: float


def families(of: Sources) -> Iterator[Family]:
    """Yield every metric."""
    labels = {"version": __version__, "python": platform.python_version(), "store": of.store_name}
    yield Family("build_info", "gauge", "Always 1; the labels say what runs.").add(1, **labels)
    yield from _loops(of)
    yield from _daemon(of.counted)
    yield from _store(of)
    yield from _server(of.counts)
    yield from _process(of.daemon_pid)


def _loops(of: Sources) -> Iterator[Family]:
    ready = Family("ready", "gauge", "Whether each part does its work, as /readyz has it.")
    for check in of.checks:
        ready.add(int(check.ok), check=check.name)
    yield ready
    for name, meaning, at in (
        ("scheduler_last_tick_timestamp_seconds", "When the scheduling loop last finished a pass.", of.beat.planned_at),
        ("lease_last_renewal_timestamp_seconds", "When the daemon last renewed its leases.", of.beat.renewed_at),
        ("heartbeat_timestamp_seconds", "When the daemon's main thread last gave a sign of life.", of.beat.written_at),
    ):
        yield from one(name, "gauge", meaning, of.now - (of.monotonic - at) if at else None)
    age = of.monotonic - of.beat.planned_at if of.beat.planned_at else None
    yield from one("scheduler_loop_age_seconds", "gauge", "How long ago the scheduling loop finished a pass.", age)


def _daemon(counted: Mapping[str, Any] | None) -> Iterator[Family]:
    answers = Family("daemon_answers", "gauge", "Whether the daemon told its counters; without them they are missing.")
    yield answers.add(int(counted is not None))
    if counted is None:
        return
    config, slots = counted["config"], counted.get("slots", {})
    yield from one(
        "config_last_reload_successful", "gauge", "Whether the last load of the config was.", config["successful"]
    )
    yield from one(
        "config_last_reload_success_timestamp_seconds", "gauge", "When a config was last loaded.", config["at"]
    )
    if slots:
        threads = Family("executor_slots", "gauge", "Threads for runs in this daemon.")
        yield threads.add(slots["busy"], state="busy").add(max(0, slots["all"] - slots["busy"]), state="free")
    yield _runs(counted)
    durations = Family("run_duration_seconds", "histogram", "How long the last attempts of runs took.")
    for job, snapshot in counted["durations"].items():
        durations.add_histogram(snapshot, job=job)
    yield durations
    delays = Family("run_start_delay_seconds", "histogram", "How late attempts began after their time.")
    yield delays.add_histogram(counted["delays"])
    for name, key, meaning in (
        ("retries_total", "retries", "Attempts that failed and are tried again."),
        ("missed_fires_total", "missed", "Fire times that passed unserved."),
        ("overlap_skips_total", "skipped", "Fire times left out since the run before had not ended."),
        ("rows_processed_total", "rows", "Rows that runs have worked through, by their own progress."),
    ):
        family = Family(name, "counter", meaning)
        for job, counters in counted["jobs"].items():
            family.add(counters.get(key, 0), job=job)
        yield family
    yield from one("runs_lost_total", "counter", "Runs taken back from daemons that fell silent.", counted["lost"])


def _runs(counted: Mapping[str, Any]) -> Family:
    """Return the runs by how they ended; each job has its successes and failures from the beginning, with nought."""
    family = Family("runs_total", "counter", "Runs that came to their end in this daemon.")
    known = {(job, outcome, trigger): count for job, outcome, trigger, count in counted["ended"]}
    for job in counted["jobs"]:
        for outcome in ("succeeded", "failed"):
            for trigger in ("schedule", "manual"):
                known.setdefault((job, outcome, trigger), 0)
    for (job, outcome, trigger), count in sorted(known.items()):
        family.add(count, job=job, outcome=outcome, trigger=trigger)
    return family


def _store(of: Sources) -> Iterator[Family]:
    gauges = of.gauges
    yield Family("store_up", "gauge", "Whether the store answered this scrape.").add(int(gauges is not None))
    if gauges is None:
        return
    lag = _age(gauges.oldest_due, gauges.now)
    yield from one("scheduler_lag_seconds", "gauge", "How late the oldest fire is that no planner has served.", lag)
    waited = _age(gauges.oldest_ready, gauges.now)
    yield from one("queue_oldest_ready_age_seconds", "gauge", "How long the oldest run waits that could begin.", waited)
    depth = Family("queue_runs", "gauge", "Unfinished runs of all daemons; parked ones wait for a mutex or a limit.")
    oldest = Family("queue_oldest_age_seconds", "gauge", "How long the oldest due run of a queue waits.")
    paused = Family("queue_paused", "gauge", "Whether the queue is paused.")
    for queue in gauges.queues:
        for state in ("ready", "later", "parked", "running"):
            depth.add(getattr(queue, state), queue=queue.queue, state=state)
        oldest.add(_age(gauges.oldest_by_queue.get(queue.queue), gauges.now), queue=queue.queue)
        paused.add(int(queue.paused_at is not None), queue=queue.queue)
    yield from (depth, oldest, paused)
    workers = Family("workers", "gauge", "Daemons of the store; dead ones have not said that they stopped.")
    alive = [worker for worker in gauges.workers if worker.is_alive]
    dead = [worker for worker in gauges.workers if not worker.is_alive and worker.state != "stopped"]
    yield workers.add(len(alive), state="alive").add(len(dead), state="dead")
    open_ones = Family("incidents_open", "gauge", "Open incidents by their rule.")
    for rule, count in sorted(gauges.incidents_by_rule.items()):
        open_ones.add(count, rule=rule)
    yield open_ones
    yield from _jobs(gauges, of.intervals)


def _jobs(gauges: Gauges, intervals: Mapping[str, float]) -> Iterator[Family]:
    states = Family("jobs", "gauge", "Jobs of the config by how they stand.")
    for state in ("enabled", "disabled", "paused", "invalid"):
        states.add(sum(job.state == state for job in gauges.jobs), state=state)
    yield states
    running = Family("runs_in_progress", "gauge", "Runs of a job that run now, in all daemons.")
    for job in gauges.jobs:
        running.add(gauges.running_by_job.get(job.name, 0), job=job.name)
    yield running
    for name, attribute, meaning in (
        ("job_last_success_timestamp_seconds", "last_success_at", "When a run of the job last succeeded."),
        ("job_last_run_timestamp_seconds", "last_run_at", "When a run of the job last ended."),
        ("job_next_run_timestamp_seconds", "next_run_at", "When the job fires next."),
        ("job_last_duration_seconds", "last_duration_seconds", "How long the last run of the job took."),
    ):
        family = Family(name, "gauge", meaning)
        for job in gauges.jobs:
            value = getattr(job, attribute)
            if value is not None:
                family.add(value.timestamp() if isinstance(value, datetime) else value, job=job.name)
        yield family
    expected = Family("job_expected_interval_seconds", "gauge", "The longest time between two coming fires of the job.")
    for name, seconds in sorted(intervals.items()):
        expected.add(seconds, job=name)
    yield expected


def _server(counts: Counts) -> Iterator[Family]:
    requests = Family("http_requests_total", "counter", "Requests by route and status.")
    for (route, code), count in sorted(counts.requests.items()):
        requests.add(count, route=route, code=str(code))
    yield requests
    denied = Family("http_denied_total", "counter", "Requests refused by why.")
    for reason, count in sorted(counts.denied.items()):
        denied.add(count, reason=reason)
    yield denied
    yield from one("sse_clients", "gauge", "Browsers and programs that follow events now.", counts.listeners)


def _process(pid: int) -> Iterator[Family]:
    """Yield what Prometheus' own clients tell of a process, here of the daemon."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 (only their number)
        booted = next(
            float(line.split()[1]) for line in Path("/proc/stat").read_text("ascii").splitlines() if "btime" in line
        )
    except (OSError, StopIteration, IndexError):
        return
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    used = (int(stat[11]) + int(stat[12])) / ticks
    yield from one("process_cpu_seconds_total", "counter", "Processor time of the daemon.", used)
    yield from one("process_resident_memory_bytes", "gauge", "Memory of the daemon.", int(stat[21]) * page)
    yield from one("process_virtual_memory_bytes", "gauge", "Address space of the daemon.", int(stat[20]))
    yield from one("process_open_fds", "gauge", "Open descriptors of the daemon.", descriptors)
    started = booted + int(stat[19]) / ticks
    yield from one("process_start_time_seconds", "gauge", "When the daemon was started.", started)


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
