"""The next item is made while this one is being used: reading and parsing beside the server's work."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_LOOK = timedelta(milliseconds=200)
_ENDS_WITHIN = timedelta(seconds=2)


class ReadAhead(Generic[T]):
    """Takes one item ahead from an iterator, on a thread of its own; errors come out where the items would.

    While it waits it calls `look`, which may raise. Use it in a `with` block; `wake` is called at its end, from the
    thread that uses it, and should make a read return that hangs.
    """

    def __init__(self, items: Iterator[T], *, look: Callable[[], None], wake: Callable[[], None]) -> None:
        self._items = items
        self._look = look
        self._wake = wake
        self._ready: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._make, name="batchd-read-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._wake()
        self._thread.join(_ENDS_WITHIN.total_seconds())

    def __iter__(self) -> Iterator[T]:
        while (item := self._next()) is not None:
            yield item

    def _next(self) -> T | None:
        while True:
            self._look()
            with contextlib.suppress(queue.Empty):
                item = self._ready.get(timeout=_LOOK.total_seconds())
                if isinstance(item, BaseException):
                    raise item
                return item

    def _make(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 (it is raised on the thread that waits for the item)
            self._put(error)

    def _put(self, item: T | BaseException | None) -> bool:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=_LOOK.total_seconds())
                return True
        return False
