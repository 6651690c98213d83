"""structlog without what it imports wherever that is installed, and batchd never uses.

rich is for tracebacks that batchd never prints: 3 MB of every daemon. greenlet is for structlog's thread-local context:
1 MB, the C++ library included. Only for programs of batchd's own: an application that imports batchd may want both.
"""

from __future__ import annotations

import sys

_UNUSED = ("rich", "greenlet")


def import_structlog() -> None:
    """Import structlog, before anything else does."""
    absent = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        import structlog  # noqa: F401, PLC0415 (as the module says)
    finally:
        for name in absent:
            del sys.modules[name]
