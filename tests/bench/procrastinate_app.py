"""The same load on Procrastinate: an app with a task that does nothing and one that looks at the clock.

As a program, its worker:

    python -m tests.bench.procrastinate_app postgresql://…

Needs the extra `bench`: nothing else needs Procrastinate.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import procrastinate

QUEUE = "default"
CONCURRENCY = 10


def app_on(url: str, *, is_worker: bool) -> procrastinate.App:
    """Return the app with its tasks `noop` and `clock`; a worker's connector is asynchronous, a caller's is not."""
    connector = (
        procrastinate.PsycopgConnector(conninfo=url) if is_worker else procrastinate.SyncPsycopgConnector(conninfo=url)
    )
    app = procrastinate.App(connector=connector)

    @app.task(name="noop", queue=QUEUE)
    async def noop() -> None:
        """Do nothing."""

    @app.task(name="clock", queue=QUEUE)
    async def clock(queued_at: float, file: str) -> None:
        """Append to the file how long ago it was queued; an event loop that does nothing else may wait for that."""
        late = time.time() - queued_at
        with Path(file).open("a") as opened:  # noqa: ASYNC230
            opened.write(f"{late}\n")

    return app


if __name__ == "__main__":
    with app_on(sys.argv[1], is_worker=True).open() as opened:
        print("ready", flush=True)
        opened.run_worker(queues=[QUEUE], concurrency=CONCURRENCY, install_signal_handlers=True)
