"""What every endpoint works with: the store, the settings, what is known of the daemon, and a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar

from batchd.clock import Clock
from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.domain.exporting import ExportSettings
from batchd.domain.job import JobDefinition, JsonObject
from batchd.domain.queue import QueueLimits
from batchd.domain.surface import HttpSettings
from batchd.jobs.contract import Kind
from batchd.web.counts import Counts
from batchd.web.denials import Denials
from batchd.web.failures import Failures
from batchd.web.health import Health
from batchd.web.live.live import Live

P = ParamSpec("P")
T = TypeVar("T")

MOST_THREADS = 4
"""Threads that wait for the store; each costs memory, and a store that is slow is not made faster by more of them."""


class Jobs(Protocol):
    """The config's jobs, as the daemon read them."""

    def definitions(self) -> Mapping[str, JobDefinition]:
        """Return every job of the config; params hold references in place of secrets."""
        ...

    def check_overrides(self, job: str, overrides: JsonObject) -> None:
        """Raise ParamsInvalid when a run of the job may not have these params, or one of them is a secret."""
        ...

    def queues(self) -> tuple[str, ...]:
        """Return the names of the config's queues, `default` among them."""
        ...

    @property
    def timezone(self) -> str:
        """The time zone in which pages show moments."""
        ...

    def limits(self, queue: str) -> str:
        """Return the queue's limits in words; empty when it has none."""
        ...

    def queue_limits(self) -> QueueLimits:
        """Return them as they hold runs back."""
        ...

    def kind(self, name: str) -> Kind[Any] | None:
        """Return the kind, imported when it was not yet; None when there is none of that name."""
        ...

    def databases_of(self, kind: str, job: str | None, params: JsonObject) -> tuple[DatabaseSettings, ...]:
        """Return the databases that a run of these stored params works on; none when that cannot be told."""
        ...


class Daemon(Protocol):
    """The daemon whose surface this is, asked over a socket."""

    def counted(self) -> JsonObject | None:
        """Return what it has counted since it started; None when it does not answer within a moment."""
        ...


@dataclass(slots=True)
class Desk:
    """One for each server."""

    store: Database
    settings: HttpSettings
    jobs: Jobs
    daemon: Daemon
    health: Health
    clock: Clock
    mask: Callable[[Any], Any]
    counts: Counts = field(default_factory=Counts)
    denials: Denials = field(default_factory=Denials)
    failures: Failures = field(default_factory=Failures)
    exports: ExportSettings | None = None
    live: Live = field(init=False)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="batchd-web")
    )

    def __post_init__(self) -> None:
        self.live = Live(self.store, self.clock, most=self.settings.most_listeners)

    async def ask_store(self, question: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Return what a function of `batchd.store` answers, called with the store in a thread."""
        return await self.in_thread(question, self.store, *arguments, **options)

    async def in_thread(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Return what the work returns, done in one of a few threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, lambda: work(*arguments, **options))

    def close(self) -> None:
        """Give the threads and the store's connections back."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.store.close()
