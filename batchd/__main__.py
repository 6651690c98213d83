"""`python -m batchd` and the console script `batchd`."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the process's command line and return its exit code."""
    # Nothing of what imports make is ever garbage: looking for some takes a quarter of their time.
    gc.disable()
    # structlog imports rich wherever it is installed, for tracebacks that batchd never prints: 4 MB of every daemon.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog  # noqa: F401, PLC0415 (before anything else does)

    del sys.modules["rich"]
    from batchd.cli.main import main as run  # noqa: PLC0415 (after structlog)

    return run()


if __name__ == "__main__":
    sys.exit(main())
