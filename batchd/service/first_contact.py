"""The start's way to its store: waited for, within a bound, and told to whoever waits for the daemon.

The HTTP server, if there is one, starts at its end: forked from a daemon that has done all this, it shares the most
memory with it. It does not wait for a store that is away, though: whoever asks how the daemon is needs an answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import timedelta

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
)

from batchd.clock import Clock
from batchd.errors import DatabaseUnavailable, LockTimeout, StatementCancelled
from batchd.service.http_surface import Web
from batchd.systemd import Notifier
from batchd.telemetry.logs import get_logger
from batchd.telemetry.thinning import Thinning

EXTENSION = timedelta(seconds=20)
"""How long systemd waits, beyond the unit's own limit, for the next word of a start or a stop that goes on."""

_STOP_NOTICED = timedelta(seconds=0.1)
_EXTEND_EVERY_SECONDS = 5.0
_HANGING = timedelta(seconds=30)
_PROMPT = timedelta(seconds=2)
"""Within it a store answers that is well; the HTTP server waits no longer."""

_PROMPT_WORK = timedelta(seconds=10)
"""The same for what is done once it has answered: tables are made, at a first start."""


class FirstContact:
    """Does what a start needs of its store, again and again while the store is away. For the main thread, once."""

    def __init__(self, stop: threading.Event, notifier: Notifier, clock: Clock, patience: timedelta, web: Web) -> None:
        self._stop = stop
        self._notifier = notifier
        self._clock = clock
        self._patience = patience
        self._web = web
        self._has_answered = False
        self._has_failed = False
        self._log = get_logger()

    def has_answered(self) -> None:
        """Say that the store answers: what takes time from now on is work, a migration perhaps, and may take it."""
        self._has_answered = True

    def make(self, prepare: Callable[[], None], *, no_wait: bool) -> bool:
        """Return True when `prepare` is done, False when a stop came first; raises what it raised for good.

        DatabaseUnavailable when the store has not answered within the patience, or at once with `no_wait`. A thread
        does the connecting: the C library can hang in it for longer than whoever stops the daemon waits. `prepare`
        leaves no connection open where there is an HTTP server.
        """
        reached: Future[None] = Future()

        def reach() -> None:
            try:
                reached.set_result(self._again(no_wait=no_wait)(prepare))
            except BaseException as error:  # noqa: BLE001 (handed to the main thread)
                reached.set_exception(error)

        reaching = threading.Thread(target=reach, name="batchd-reach-store", daemon=True)
        began = self._clock.monotonic()
        reaching.start()
        self._web.make_ready()
        extended_at = began - _EXTEND_EVERY_SECONDS
        is_overdue = False
        while not (self._stop.is_set() or wait([reached], timeout=_STOP_NOTICED.total_seconds()).done):
            now = self._clock.monotonic()
            if not self._has_answered and now - began > (self._patience + _HANGING).total_seconds():
                raise DatabaseUnavailable(f"the store neither answers nor breaks for {now - began:.0f} s")
            if not is_overdue and self._is_overdue(now - began):
                is_overdue = True
                self._web.start_apart()
            if now - extended_at >= _EXTEND_EVERY_SECONDS:
                self._notifier.extend(EXTENSION)
                extended_at = now
        if self._stop.is_set():
            return False
        reached.result()
        reaching.join()
        self._web.start()
        return True

    def _is_overdue(self, seconds: float) -> bool:
        prompt = _PROMPT_WORK if self._has_answered else _PROMPT
        return self._has_failed or seconds > prompt.total_seconds()

    def _again(self, *, no_wait: bool) -> Retrying:
        thinning = Thinning()

        def tell(state: RetryCallState) -> None:
            assert state.outcome
            reason = state.outcome.exception()
            self._has_answered = False
            self._has_failed = True
            self._notifier.status(f"waiting for the store: {reason}")
            if thinning.failed(self._clock.monotonic()):
                self._log.warning("store.waiting", reason=str(reason), tries=state.attempt_number)

        patience = stop_after_delay(self._patience)
        return Retrying(
            retry=retry_if_exception_type((DatabaseUnavailable, LockTimeout, StatementCancelled)),
            wait=wait_exponential(multiplier=0.5, max=10),
            stop=stop_after_attempt(1) if no_wait else stop_when_event_set(self._stop) | patience,
            sleep=sleep_using_event(self._stop),
            after=tell,
            reraise=True,
        )
