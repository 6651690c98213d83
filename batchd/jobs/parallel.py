"""Several pieces of one attempt's work at once, in threads of the attempt's own."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from batchd.jobs.contract import JobContext

T = TypeVar("T")

_LOOK_EVERY_SECONDS = 0.2
"""How long a stop may go unnoticed while every thread is busy."""


def run_each(context: JobContext, items: Iterable[T], work: Callable[[T], None], *, parallel: int) -> None:
    """Call `work` for each item, at most `parallel` at once, begun in order; return when all are done.

    Items are taken from the iterable on the calling thread, each only when a thread is free for it. After an error, or
    when the run is told to stop, nothing more is begun, and what has begun is waited for; then the first error is
    raised. The threads have the caller's context variables, so that they log as the run.
    """
    if parallel == 1:
        for item in items:
            context.raise_if_stopping()
            work(item)
        context.raise_if_stopping()
        return
    with ThreadPoolExecutor(parallel, thread_name_prefix=f"batchd-run-{context.run_id}") as threads:
        busy: set[Future[None]] = set()
        for item in items:
            context.raise_if_stopping()
            busy.add(threads.submit(contextvars.copy_context().run, work, item))
            while len(busy) >= parallel:
                busy = _after_one(context, busy)
        while busy:
            busy = _after_one(context, busy)


def _after_one(context: JobContext, busy: set[Future[None]]) -> set[Future[None]]:
    """Return the futures that are still busy once one has ended, or after a while; raises what one raised."""
    ended, busy = wait(busy, timeout=_LOOK_EVERY_SECONDS, return_when=FIRST_COMPLETED)
    for future in ended:
        future.result()
    context.raise_if_stopping()
    return busy
