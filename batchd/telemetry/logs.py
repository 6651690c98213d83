"""structlog: one JSON object a line on stdout, or a readable line when stdout is a terminal."""

from __future__ import annotations

from typing import Any, cast

import structlog
from structlog.typing import FilteringBoundLogger


def get_logger(**fields: Any) -> FilteringBoundLogger:
    """Return a logger with the fields bound. Any thread may use it; events are those of `batchd.telemetry.events`."""
    return cast("FilteringBoundLogger", structlog.get_logger(**fields))
