"""Plain APScheduler with its own parts, to be held beside batchd.

    python -m tests.support.stock URL

is a process that runs whatever is due in the store, until it is killed.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.pool import NullPool


def note(path: str, text: str, busy_seconds: float = 0) -> None:
    """Be a job: append the text to the file, then be busy."""
    with Path(path).open("a") as file:
        file.write(text + "\n")
    time.sleep(busy_seconds)


def stock_scheduler(url: str, **engine_options: Any) -> BackgroundScheduler:
    """Return a scheduler of stock parts that never takes a fire for too late; not started."""
    return BackgroundScheduler(
        jobstores={"default": SQLAlchemyJobStore(url, engine_options={"poolclass": NullPool, **engine_options})},
        job_defaults={"misfire_grace_time": None},
        timezone=UTC,
    )


@contextlib.contextmanager
def running(scheduler: BackgroundScheduler, *, paused: bool = False) -> Iterator[BackgroundScheduler]:
    """Run the scheduler until the block ends."""
    scheduler.start(paused=paused)
    try:
        yield scheduler
    finally:
        if scheduler.running:
            scheduler.shutdown(wait=False)


def main() -> None:
    """Run what is due until killed."""
    stock_scheduler(sys.argv[1]).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
