"""The same load on Procrastinate: an app with one task that does nothing; as a program, its worker.

    python -m tests.bench.procrastinate_app postgresql://…

Needs the extra `bench`: nothing else needs Procrastinate.
"""

from __future__ import annotations

import sys

import procrastinate

QUEUE = "default"
CONCURRENCY = 10


def app_on(url: str, *, is_worker: bool) -> procrastinate.App:
    """Return the app with its task `noop`; a worker's connector is asynchronous, a caller's is not."""
    connector = (
        procrastinate.PsycopgConnector(conninfo=url) if is_worker else procrastinate.SyncPsycopgConnector(conninfo=url)
    )
    app = procrastinate.App(connector=connector)

    @app.task(name="noop", queue=QUEUE)
    async def noop() -> None:
        """Do nothing."""

    return app


if __name__ == "__main__":
    with app_on(sys.argv[1], is_worker=True).open() as opened:
        print("ready", flush=True)
        opened.run_worker(queues=[QUEUE], concurrency=CONCURRENCY, install_signal_handlers=True)
