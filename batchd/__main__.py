"""`python -m batchd` and the console script `batchd`."""

from __future__ import annotations

import sys

from batchd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
