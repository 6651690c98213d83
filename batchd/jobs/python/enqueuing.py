"""Where a function's `enqueue` finds the store: inside a run the run's own, else the one that the process named.

batchd.configure("postgresql://…/app")     once, when the application starts; or $BATCHD_STORE_URL
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.domain.run import CreatedBy
from batchd.errors import BatchdError
from batchd.store.enqueue import NewRun, enqueue, enqueue_in

STORE_VARIABLE = "BATCHD_STORE_URL"

Enqueue = Callable[..., tuple[int, ...]]

_inside: ContextVar[Enqueue | None] = ContextVar("batchd_enqueue", default=None)


class StoreNotNamed(BatchdError):
    """Nobody said where batchd's store is."""


class _Outside:
    """The store of a process that is no run: opened when it is first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._url: str | None = None
        self._store: Database | None = None
        self._is_ours = True

    def name(self, url: str | None) -> None:
        with self._lock:
            self._forget()
            self._url = url

    def use(self, store: Database | None) -> None:
        with self._lock:
            self._forget()
            self._store = store
            self._is_ours = store is None

    def store(self) -> Database:
        with self._lock:
            if self._store is None:
                self._store = Database(_settings(self._url or os.environ.get(STORE_VARIABLE)))
            return self._store

    def _forget(self) -> None:
        if self._store is not None and self._is_ours:
            self._store.close()
        self._store = None


_outside = _Outside()


def configure(url: str | None) -> None:
    """Name the store in which this process queues runs: postgresql://… or sqlite:///…; None forgets it again.

    Nothing is connected yet. Call it once, early; a forked process opens connections of its own when it calls it again.
    """
    _outside.name(url)


def use_store(store: Database | None) -> None:
    """Queue runs in this store, which stays the caller's to close: for the daemon, whose jobs may have own threads."""
    _outside.use(store)


@contextlib.contextmanager
def inside(enqueue_here: Enqueue) -> Iterator[None]:
    """Let functions that are called in the block queue their runs with `enqueue_here`."""
    token = _inside.set(enqueue_here)
    try:
        yield
    finally:
        _inside.reset(token)


def queue(runs: Sequence[NewRun], connection: Any = None) -> tuple[int, ...]:
    """Queue the runs and return the ids of those that are new; in the transaction of `connection` when there is one.

    Raises StoreNotNamed, JobError for a job that the store does not know, DatabaseUnavailable.
    """
    if connection is not None:
        return enqueue_in(connection, _outside.store(), runs, created_by=CreatedBy.API)
    here = _inside.get()
    if here is not None:
        return here(*runs)
    return enqueue(_outside.store(), runs, created_by=CreatedBy.API)


def _settings(url: str | None) -> DatabaseSettings:
    if not url:
        raise StoreNotNamed(
            "nobody has said where batchd's store is",
            hint=f"call batchd.configure(url) when the application starts, or set {STORE_VARIABLE}",
        )
    return DatabaseSettings(
        name="store",
        url=f"postgresql{url.removeprefix('postgres')}" if url.startswith("postgres://") else url,
        pool_size=5,
        connect_timeout=timedelta(seconds=5),
        statement_timeout=timedelta(seconds=30),
        lock_timeout=timedelta(seconds=5),
        must_exist=True,
        is_store=True,
    )
