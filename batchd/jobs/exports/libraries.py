"""Libraries that extras bring: imported when a format needs them, and no earlier."""

from __future__ import annotations

import importlib
from typing import Any

from batchd.errors import JobError


def library(name: str, extra: str) -> Any:
    """Return a library that an extra brings; raises JobError that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise JobError(
            f"this format needs {name.partition('.')[0]}, which is not installed",
            hint=f"install it with: pip install 'batchd[{extra}]'",
            retryable=False,
        ) from error
