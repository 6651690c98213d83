"""Plain APScheduler 3.11 with its SQLAlchemyJobStore, as a process of its own that `bench_scheduler` measures.

    python -m tests.bench.stock_apscheduler --store URL --jobs 100 --every 1 --first 1767225600 --until 1767225630

Prints `{"event": "service.ready"}` when it has started, then, at `--until` or after `--runs` runs, one line with how
late each run began, in seconds. Jobs run on 10 threads, none is ever a misfire.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger


def began_at() -> float:
    """Be the job: return when it began, in seconds since 1970."""
    return time.time()


def main() -> None:
    """Run the scheduler and print what it did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--first", type=float, required=True)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--runs", type=int)
    given = parser.parse_args()
    late: list[float] = []
    complete = threading.Event()

    def keep(event: Any) -> None:
        late.append(event.retval - event.scheduled_run_time.timestamp())
        if given.runs is not None and len(late) >= given.runs:
            complete.set()

    scheduler = BackgroundScheduler(
        jobstores={"default": SQLAlchemyJobStore(given.store)},
        job_defaults={"misfire_grace_time": None},
        timezone=UTC,
    )
    scheduler.add_listener(keep, EVENT_JOB_EXECUTED)
    scheduler.start(paused=True)
    first = datetime.fromtimestamp(given.first, UTC)
    for number in range(len(scheduler.get_jobs()), given.jobs):
        trigger = IntervalTrigger(seconds=given.every, start_date=first, timezone=UTC)
        scheduler.add_job(began_at, trigger, id=f"job-{number}", next_run_time=first)
    scheduler.resume()
    print(json.dumps({"event": "service.ready", "at": time.time()}), flush=True)
    complete.wait(given.until - time.time())
    print(json.dumps({"event": "measured", "late": late}), flush=True)
    scheduler.shutdown(wait=False)


if __name__ == "__main__":
    main()
