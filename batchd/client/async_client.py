"""The asynchronous client: the same methods, to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, Unpack

from batchd.client.client import PSYCOPG_CALL, Client, Pauses, RunOrId, refuse_psycopg
from batchd.clock import SystemClock
from batchd.db.callers import as_connection, fetch_one_async, is_async, is_psycopg, naming_what_is_missing
from batchd.domain.run import CreatedBy
from batchd.domain.run_request import Options, RunRequest
from batchd.errors import UsageError
from batchd.store.batches import QueuedBatch
from batchd.store.control import Cancelled
from batchd.store.queries import RunView
from batchd.store.requests import answers_of, document_of, enqueue_requests
from batchd.store.unique_runs import Enqueued


class AsyncClient:
    """`Client` for asyncio. A `connection` is an AsyncConnection of psycopg or SQLAlchemy, or an AsyncSession.

    What needs a connection of its own goes through the pool of a `Client` in a thread, so that the event loop never
    waits for a database.
    """

    def __init__(self, url: str, **settings: Any) -> None:
        self._client = Client(url, **settings)

    async def enqueue(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        /,
        *,
        connection: Any = None,
        **options: Unpack[Options],
    ) -> Enqueued:
        """See `Client.enqueue`."""
        (enqueued,) = await self.enqueue_many([RunRequest(name, params or {}, **options)], connection=connection)
        return enqueued

    async def enqueue_many(self, requests: Iterable[RunRequest], *, connection: Any = None) -> tuple[Enqueued, ...]:
        """See `Client.enqueue_many`."""
        wanted = list(requests)
        if connection is None:
            return await asyncio.to_thread(self._client.enqueue_many, wanted)
        if not is_async(connection):
            raise UsageError("the connection is not asynchronous", hint="use batchd.Client, without await")
        if not wanted:
            return ()
        with naming_what_is_missing():
            if is_psycopg(connection):
                given = (document_of(wanted), CreatedBy.CLIENT.value)
                return answers_of(await fetch_one_async(connection, PSYCOPG_CALL, given), len(wanted))
            enqueued: tuple[Enqueued, ...] = await connection.run_sync(
                lambda synchronous: enqueue_requests(as_connection(synchronous), self._client._database, wanted)  # noqa: SLF001
            )
            return enqueued

    async def batch(
        self,
        requests: Iterable[RunRequest],
        *,
        name: str | None = None,
        on_complete: RunRequest | None = None,
        on_success: RunRequest | None = None,
        connection: Any = None,
    ) -> QueuedBatch:
        """See `Client.batch`."""
        wanted = list(requests)
        ends: dict[str, Any] = {"name": name, "on_complete": on_complete, "on_success": on_success}
        if connection is None:
            return await asyncio.to_thread(self._client.batch, wanted, **ends)
        if not is_async(connection):
            raise UsageError("the connection is not asynchronous", hint="use batchd.Client, without await")
        refuse_psycopg(connection)
        with naming_what_is_missing():
            queued: QueuedBatch = await connection.run_sync(
                lambda synchronous: self._client.batch(wanted, **ends, connection=as_connection(synchronous))
            )
            return queued

    async def run(self, run: RunOrId) -> RunView:
        """See `Client.run`."""
        return await asyncio.to_thread(self._client.run, run)

    async def wait(self, run: RunOrId, timeout: timedelta | float | None = None) -> RunView:  # noqa: ASYNC109
        """See `Client.wait`."""
        clock = SystemClock()
        pauses = Pauses(clock.monotonic(), timeout)
        while not (found := await self.run(run)).is_final:  # noqa: ASYNC110 (another process ends the run)
            await asyncio.sleep(pauses.next(clock.monotonic(), found))
        return found

    async def cancel(self, run: RunOrId) -> Cancelled:
        """See `Client.cancel`."""
        return await asyncio.to_thread(self._client.cancel, run)

    async def close(self) -> None:
        """See `Client.close`."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
