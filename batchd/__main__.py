"""`python -m batchd` and the console script `batchd`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from batchd.lean_structlog import import_structlog


def main() -> int:
    """Run the process's command line and return its exit code."""
    if is_daemon(sys.argv[1:]):
        # Before the heavy imports: a SIGHUP without a handler would end the process, and look like a clean stop.
        from batchd.signals import process_signals  # noqa: PLC0415 (only the daemon takes its signals over)

        process_signals()
    # Nothing of what imports make is ever garbage: looking for some takes a quarter of their time.
    gc.disable()
    import_structlog()
    from batchd.cli.main import main as run  # noqa: PLC0415 (after structlog)

    return run()


def is_daemon(words: Sequence[str]) -> bool:
    """Return whether the command line is `batchd run`, whatever options stand before the command."""
    rest = iter(words)
    for word in rest:
        if word in {"-c", "--config"}:
            next(rest, None)
        elif not word.startswith("-"):
            return word == "run"
    return False


if __name__ == "__main__":
    sys.exit(main())
