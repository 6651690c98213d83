"""The server process: uvicorn on sockets that somebody else opened, until the daemon says so or is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import uvicorn

from batchd.errors import BatchdError
from batchd.store import meta, web_requests
from batchd.telemetry.logs import get_logger
from batchd.web import memory
from batchd.web.app import create_app
from batchd.web.connection import Connection
from batchd.web.desk import Desk
from batchd.web.exports.upkeep import keep_tidy
from batchd.web.going_on import going_on
from batchd.web.layers import LARGEST_HEAD
from batchd.web.live.wire import Abortable
from batchd.web.supervisor import RELOAD

_MOVE_EVERY = timedelta(seconds=1)
_LOOK_EVERY = timedelta(seconds=5)
_TELL_ENDS_EVERY = timedelta(seconds=20)
_TIDY_EVERY = timedelta(minutes=10)
_KEEP_ALIVE_SECONDS = 5
_BACKLOG = 512
_SPARE_CONNECTIONS = 256
_GRACE_SECONDS = 2
_LAST_RESORT_SECONDS = 3.0
_LONGEST_MESSAGE = 100

log = get_logger()


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def make_server(desk: Desk) -> uvicorn.Server:
    """Return the server of the desk, which has nothing open yet and no thread: for the process that `serve` runs in."""
    server = _Server(
        uvicorn.Config(
            Abortable(create_app(desk)),
            loop="asyncio",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=_BACKLOG,
            h11_max_incomplete_event_size=LARGEST_HEAD,
            limit_concurrency=desk.settings.most_listeners + _SPARE_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    server.config.load()
    return server


def serve(
    server: uvicorn.Server,
    desk: Desk,
    listener: socket.socket,
    control: socket.socket,
    reread: Callable[[Desk], None],
) -> None:
    """Serve on the listening socket until SIGTERM, or until the control socket says so or ends; main thread only.

    `reread` gives the desk what the config says now; it is called in another thread.
    """
    memory.keep_one_arena()
    asyncio.run(_serve(server, desk, listener, control, reread))


async def _serve(
    server: uvicorn.Server,
    desk: Desk,
    listener: socket.socket,
    control: socket.socket,
    reread: Callable[[Desk], None],
) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        desk.stopping.set()
        server.should_exit = True

    def follow() -> None:
        server.config.limit_concurrency = desk.settings.most_listeners + _SPARE_CONNECTIONS
        desk.live.hub.most = desk.settings.most_listeners

    def take_over() -> None:
        reread(desk)
        loop.call_soon_threadsafe(follow)

    def hear() -> None:
        _hear(control, take_over)
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(stop)
        # A loop that hangs would never notice.
        threading.Event().wait(_LAST_RESORT_SECONDS)
        os._exit(1)

    loop.add_signal_handler(signal.SIGTERM, stop)
    threading.Thread(target=hear, name="batchd-web-control", daemon=True).start()
    sides = (_move(desk), _watch_store(desk), _tell_ends(desk), _tidy(desk))
    loops = [asyncio.create_task(side) for side in (*sides, desk.live.serve(desk.stopping), keep_tidy(desk))]
    log.info("http.listening", listen=str(desk.settings.listen))
    try:
        await server.serve(sockets=[listener])
    finally:
        stop()
        for each in loops:
            each.cancel()
        desk.close()


def _hear(control: socket.socket, reread: Callable[[], None]) -> None:
    """Follow what the daemon says; return when the server is to end: it says so, or is gone."""
    with contextlib.suppress(OSError):
        while control.recv(_LONGEST_MESSAGE) == RELOAD:
            try:
                reread()
            except BatchdError as error:
                log.warning("http.not_reloaded", reason=error.message)
            else:
                log.info("http.reloaded")


async def _move(desk: Desk) -> None:
    """Show the daemon again and again that this loop turns: it ends a server that hangs, and starts another one."""
    while True:
        desk.health.move()
        await asyncio.sleep(_MOVE_EVERY.total_seconds())


async def _watch_store(desk: Desk) -> None:
    """Ask the store again and again, so that /readyz knows without asking."""
    while not desk.stopping.is_set():
        with going_on("store-watch"):
            await desk.ask_store(meta.database_time)
            if desk.health.store_answered_at is None:
                memory.give_back()  # what the start has left
            desk.health.answered()
        await _pause(desk, _LOOK_EVERY)


async def _tell_ends(desk: Desk) -> None:
    """Have the log say when a flood of requests that were refused, or failed, is over."""
    while not desk.stopping.is_set():
        await _pause(desk, _TELL_ENDS_EVERY)
        with going_on("floods"):
            desk.denials.tell_ends(desk.clock.monotonic())
            desk.failures.tell_ends(desk.clock.monotonic())


async def _tidy(desk: Desk) -> None:
    """Remove what nobody needs any more: old idempotency keys, sessions that are over, the end of the audit record."""
    while not desk.stopping.is_set():
        await _pause(desk, _TIDY_EVERY)
        memory.give_back()
        with going_on("tidy"):
            kept = desk.settings.keep_audit.total_seconds()
            await desk.ask_store(web_requests.prune, keep_audit_seconds=kept)


async def _pause(desk: Desk, length: timedelta) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(desk.stopping.wait(), length.total_seconds())
