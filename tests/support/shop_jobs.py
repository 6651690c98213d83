"""What an application's own module of jobs looks like, for tests of the decorator."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import batchd


@batchd.job(queue="critical", max_attempts=3, retry={"delay": timedelta(seconds=2), "jitter": 0}, priority=5)
def sync_user(user_id: int, *, full: bool = False) -> dict[str, int]:
    """Sync one user."""
    return {"synced": user_id + int(full)}


@batchd.job
def send_mail(context: batchd.JobContext, to: UUID, subject: str = "Hello") -> str:
    """Send a mail; the context is not the caller's to give."""
    return f"{subject} {to} of {context.job}"


@batchd.job(name="nightly", schedule="every day at 03:00", isolation="process", timeout="5m")
def prune() -> None:
    """Prune."""


async def helper() -> None:
    """Be no job."""
