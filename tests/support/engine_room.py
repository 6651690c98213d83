"""A real engine in the test's own process, with kinds made for the test and leases that end within seconds.

with engine_room(store, {"nap": nap}) as engine:
    run_id = add_run(store, kind="nap", job=None)
    wait_for_state(store, run_id, RunState.SUCCEEDED)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from batchd.clock import Clock, SystemClock
from batchd.db.dialect import Topic
from batchd.db.engine import Database
from batchd.domain.lease import LeaseTerms
from batchd.engine.pool import Engine
from batchd.engine.settings import EngineSettings
from batchd.engine.setup import EngineConfig
from batchd.errors import BatchdError
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.store import workers
from batchd.wake_loop import WakeLoop


class AnyParams(Params):
    """Nothing to say."""


def kind_of(name: str, run: Callable[[JobContext], Any]) -> Kind[Any]:
    """Return a kind that calls the function with its context."""
    return Kind(name, "For a test.", AnyParams, lambda _params, context: run(context), "", lambda _params: ())


def engine_config(
    kinds: Mapping[str, Callable[[JobContext], Any] | Kind[Any]], databases: Mapping[str, Database] | None = None
) -> EngineConfig:
    """Return what an engine knows of a config that has these."""
    return EngineConfig(
        kinds={name: run if isinstance(run, Kind) else kind_of(name, run) for name, run in kinds.items()},
        databases=databases or {},
        resolve_params=lambda _job, params: params,
        mask=lambda value: value,
    )


@contextlib.contextmanager
def engine_room(
    store: Database,
    kinds: Mapping[str, Callable[[JobContext], Any] | Kind[Any]],
    *,
    databases: Mapping[str, Database] | None = None,
    slots: int = 2,
    lease_seconds: float = 6,
    grace_seconds: float = 2,
    clock: Clock | None = None,
    stops_cleanly: bool = True,
) -> Iterator[Engine]:
    """Run an engine that knows these kinds, woken as the daemon's is, until the block ends."""
    clock = clock or SystemClock()
    engine = Engine(
        store=store,
        settings=EngineSettings(
            slots=slots,
            queues={},
            lease=LeaseTerms(length=timedelta(seconds=lease_seconds), heartbeat=timedelta(seconds=lease_seconds / 3)),
            reap_every=timedelta(seconds=0.5),
            shutdown_grace=timedelta(seconds=grace_seconds),
        ),
        config=engine_config(kinds, databases),
        worker=workers.this_process(),
        clock=clock,
    )
    engine.prepare()
    engine.start()
    wakes = WakeLoop(store, lambda topics: engine.wake(topics | {Topic.RUNS}), clock)
    wakes.start()
    try:
        yield engine
    finally:
        wakes.request_stop()
        engine.drain()
        is_clean = engine.stop(clock.monotonic() + grace_seconds + 5)
        with contextlib.suppress(BatchdError), store.writing() as connection:
            store.dialect.notify(connection, [Topic.RUNS])  # or it would listen for the rest of its second
        wakes.stop(clock.monotonic() + 5)
        wakes.close()
        for loop in engine._loops():
            loop.stop(clock.monotonic() + 10)  # a process ends here; a test must not close the store under its feet
        assert is_clean or not stops_cleanly
