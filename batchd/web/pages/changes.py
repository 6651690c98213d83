"""Changes that a form asks for: what is done and who did it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from batchd.store import audit
from batchd.web.call import Call

T = TypeVar("T")


async def changed(call: Call, change: Callable[..., T], *arguments: Any, action: str, **about: Any) -> T:
    """Return what the change of the store came to, and note who asked for it; `about` is job, run_id, queue, detail."""
    outcome = await call.store(change, *arguments)
    await call.store(audit.note, call.actor, action, **about)
    return outcome
