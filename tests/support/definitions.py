"""Builds job definitions for tests that care about one field."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from batchd.domain.job import Backoff, CatchUp, CatchUpPolicy, JobDefinition, Overlap, RetryPolicy

_JOB = JobDefinition(
    name="nightly",
    kind="cleanup",
    schedule="every 1m",
    timezone="UTC",
    queue="default",
    priority=0,
    enabled=True,
    catch_up=CatchUpPolicy(CatchUp.ONCE, 10, timedelta(days=1)),
    overlap=Overlap.SKIP,
    start_deadline=None,
    jitter=timedelta(0),
    timeout=timedelta(minutes=5),
    retry=RetryPolicy(3, Backoff.FIXED, timedelta(seconds=1), timedelta(seconds=1), 0.0),
    params={"table": "logs"},
)


def job(name: str = "nightly", **fields: Any) -> JobDefinition:
    """Return a definition with the fields changed."""
    return replace(_JOB, name=name, **fields)
