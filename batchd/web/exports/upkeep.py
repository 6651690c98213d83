"""Removes old files of exports from time to time, in the server's process."""

from __future__ import annotations

import asyncio
import contextlib

from batchd.telemetry.logs import get_logger
from batchd.web.desk import Desk
from batchd.web.exports.files import remove_old
from batchd.web.going_on import going_on

_EVERY_SECONDS = 600.0

log = get_logger()


async def keep_tidy(desk: Desk) -> None:
    """Remove what is too old, every ten minutes, until the server stops."""
    while not desk.stopping.is_set():
        settings = desk.exports
        if settings is not None:
            with going_on("exports"):
                removed = await asyncio.to_thread(remove_old, settings.folder, settings.keep_for, desk.clock.now())
                if removed:
                    log.info("exports.pruned", files=len(removed))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(desk.stopping.wait(), _EVERY_SECONDS)
