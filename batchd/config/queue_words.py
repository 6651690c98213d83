"""A queue's limits in words, for the terminal and for pages."""

from __future__ import annotations

from batchd.config.settings import QueueSettings
from batchd.domain.quantities import format_duration
from batchd.domain.queue import Rate


def limits_text(settings: QueueSettings) -> str:
    """Return the limits: "2 each daemon, 100/1m rate"; empty when there is none."""
    said = [
        (settings.concurrency, "each daemon"),
        (settings.max_running, "in all"),
        (settings.max_running_per_key, "per key"),
        (rate_text(settings.rate), "rate"),
        (rate_text(settings.rate_per_key), "rate per key"),
    ]
    return ", ".join(f"{limit} {name}" for limit, name in said if limit is not None)


def rate_text(rate: Rate | None) -> str | None:
    """Return the rate as the config has it: "100/1m"."""
    return None if rate is None else f"{rate.count}/{format_duration(rate.period)}"
