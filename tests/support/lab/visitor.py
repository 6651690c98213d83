"""Somebody who asks a web server again and again, at once and without patience for a refusal, until told to stop.

Run with the machine's own Python, which has no libraries: prints how often each came of it, as JSON.
"""

from __future__ import annotations

import collections
import json
import sys
import time
import urllib.request
from pathlib import Path


def main(url: str, told: str, until: str) -> None:
    """Ask until there is a file called `until`; make one called `told` when an answer has come."""
    came_to: collections.Counter[str] = collections.Counter()
    while not Path(until).exists():
        try:
            with urllib.request.urlopen(url, timeout=120) as answer:
                came_to[str(answer.status)] += 1
            Path(told).touch()
        except OSError as error:
            came_to[repr(error)] += 1
        time.sleep(0.01)
    sys.stdout.write(json.dumps(came_to))


main(*sys.argv[1:])
