"""structlog without rich, which it imports wherever that is installed, for tracebacks that batchd never prints.

That would be 3 MB of every daemon, and of a server that takes a dead one's place. Only for programs of batchd's own: an
application that imports batchd may want those tracebacks.
"""

from __future__ import annotations

import sys


def import_structlog() -> None:
    """Import structlog, before anything else does."""
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog  # noqa: F401, PLC0415 (as the module says)

    del sys.modules["rich"]
