"""The HTTP server that takes a dead one's place: `python -P -m batchd.successor`, which `batchd.surface` executes.

Like `batchd.__main__`, it does two things before the heavy imports, which take seconds on a loaded machine: it leaves
the daemon's signals alone, of which a terminal's Ctrl-C would end it, and leaves out what it does not need.
"""

from __future__ import annotations

import gc
import sys

from batchd.errors import ExitCode
from batchd.lean_structlog import import_structlog
from batchd.signals import leave, leave_to_parent


def main() -> None:
    """Serve until the daemon says so or ends; end the process then, also while a thread still waits for the store."""
    leave_to_parent()
    gc.disable()  # nothing of what imports make is garbage; the server enables it
    import_structlog()
    from batchd.surface import succeed  # noqa: PLC0415 (after structlog)

    leave(ExitCode(succeed(sys.argv[1:])))


if __name__ == "__main__":
    main()
